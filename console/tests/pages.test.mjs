// Costs, schedules and the system, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessible,
  api,
  awayFromMidnight,
  base,
  eventually,
  fits,
  hold,
  latch,
  nothingFailed,
  scripted,
  settled,
  setUp,
  signedIn,
  until,
} from "./harness.mjs";

setUp();

const phone = (colorScheme) => signedIn({ colorScheme, viewport: { width: 360, height: 640 } });
const HOSTILE = "<img src=x onerror=alert(1)>\u202e";

test("costs are added up, and the namespace gets a budget", async () => {
  await awayFromMidnight();
  const page = await phone("light");
  await page.keyboard.press("c");
  await page.getByText("Nothing was spent, and there are no budgets.").waitFor();
  await page.getByText("$0.00 spent, 0 tasks ended").waitFor();
  const usage = { usage: { costMicroUsd: 1_500_000, inputTokens: 100 } };
  await until(await scripted("costly", [usage, { succeed: "done" }]), "TASK_STATE_SUCCEEDED");
  const row = page.getByRole("region", { name: "Budgets" }).locator("tr", { hasText: "script" });
  await row.getByText("$1.50").first().waitFor();
  const sum = page.getByText("$1.50 spent, 1 task ended", { exact: true });
  await eventually(async () => {
    await page.getByRole("button", { name: "Read again" }).click();
    return sum.isVisible();
  }, "what was spent");
  await page.getByRole("region", { name: "By agent" }).getByRole("cell", { name: "script" }).waitFor();
  await page.getByRole("region", { name: "By model" }).getByRole("cell", { name: "unknown" }).waitFor();
  const form = page.getByRole("form", { name: "Budget of the namespace" });
  await form.getByLabel("Dollars a day").fill("2");
  await page.keyboard.press("Enter");
  await page.getByText("$1.50 of $2.00").waitFor();
  await form.getByText("Saved.").waitFor();
  const forecast = page.getByRole("region", { name: "Forecast" });
  await forecast.locator("tr", { hasText: "namespace default" }).waitFor();
  await fits(page, "costs");
  await accessible(page, "costs, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "costs, dark");
  // An amount that the control plane refuses.
  await form.getByLabel("Dollars a day").fill("99999999");
  await form.getByRole("button", { name: "Set budget" }).click();
  await form.getByRole("alert").waitFor();
  await page.getByRole("button", { name: "Remove budget" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove budget" }).click();
  await page.getByText("$1.50 of $2.00").waitFor({ state: "detached" });
  const { budgets } = await api("GET", "namespaces/default/budgets");
  assert.ok(budgets.every((one) => !one.budget));
  await page.getByRole("link", { name: "30 days" }).click();
  await page.waitForURL(/days=30/);
  await page.reload();
  await sum.waitFor();
  await page.context().close();
});

test("a budget that someone else has set meanwhile is shown next to the own one", async () => {
  const set = (dollars) => api("PUT", "namespaces/default/budget", { dailyMicroUsd: `${dollars}000000` });
  await set(2);
  const page = await phone("light");
  await page.keyboard.press("c");
  const form = page.getByRole("form", { name: "Budget of the namespace" });
  const day = form.getByLabel("Dollars a day");
  await page.waitForFunction(() => document.querySelector('input[name="daily"]')?.value === "2");
  await day.fill("3");
  await set(5);
  // What is typed stays, also when the page reads what the other one has set.
  await page.getByRole("button", { name: "Read again" }).click();
  await page.getByText("of $5.00").waitFor();
  assert.equal(await day.inputValue(), "3");
  await form.getByRole("button", { name: "Set budget" }).click();
  const conflict = page.getByRole("region", { name: "Changed meanwhile" });
  await conflict.getByRole("alert").filter({ hasText: "Dollars a day is $5 now, and not $3" }).waitFor();
  await fits(page, "a conflict of budgets");
  await accessible(page, "a conflict of budgets");
  await conflict.getByRole("button", { name: "Overwrite with mine" }).click();
  await page.getByText("of $3.00").waitFor();
  await api("PUT", "namespaces/default/budget", {});
  await page.context().close();
});

test("a reading that began before a budget was set does not take its place", async () => {
  const page = await phone("light");
  const form = page.getByRole("form", { name: "Budget of the namespace" });
  // The page reads when it is opened, and when its stream is. The second answer waits until the budget is set, and no later one arrives.
  let count = 0;
  let older;
  const [answered, answer] = latch();
  const [released, release] = latch();
  const [over, end] = latch();
  for (const event of ["requestfinished", "requestfailed"]) {
    page.on(event, (request) => request === older && end());
  }
  await page.route(/\/budgets\?pageSize=200/, async (route) => {
    count += 1;
    if (count === 1) {
      await route.fallback();
    }
    if (count !== 2) {
      return;
    }
    older = route.request();
    const response = await route.fetch();
    answer();
    await released;
    // The page may have given it up.
    await route.fulfill({ response }).catch(() => {});
  });
  await page.goto(`${base}/costs`);
  await answered;
  await page.getByText("Loading…").waitFor({ state: "detached" });
  await form.getByLabel("Dollars a day").fill("2");
  await form.getByRole("button", { name: "Set budget" }).click();
  await form.getByText("Saved.").waitFor();
  release();
  await over;
  await settled(page);
  await page.getByRole("button", { name: "Remove budget" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove budget" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await eventually(async () => {
    const { budgets = [] } = await api("GET", "namespaces/default/budgets");
    return budgets.every(({ budget }) => !budget);
  }, "the budget stays");
  await page.context().close();
});

test("a budget with parts of a cent is changed", async () => {
  await api("PUT", "namespaces/default/budget", { dailyMicroUsd: "2500500" });
  const page = await phone("light");
  await page.keyboard.press("c");
  const form = page.getByRole("form", { name: "Budget of the namespace" });
  await page.waitForFunction(() => document.querySelector('input[name="daily"]')?.value === "2.5005");
  await form.getByLabel("Dollars a month").fill("40");
  await form.getByRole("button", { name: "Set budget" }).click();
  await form.getByText("Saved.").waitFor();
  const { budgets } = await api("GET", "namespaces/default/budgets");
  const { budget } = budgets.find((one) => one.name === "namespaces/default");
  assert.deepEqual([budget.dailyMicroUsd, budget.monthlyMicroUsd], ["2500500", "40000000"]);
  await api("PUT", "namespaces/default/budget", {});
  await page.context().close();
});

test("schedules are paused, resumed and run", async () => {
  const page = await phone("dark");
  await page.getByRole("link", { name: "Schedules" }).click();
  await page.getByText("There are no schedules in this namespace.").waitFor();
  for (const [name, spec] of [
    ["nightly", { cron: "0 3 * * *", timeZone: "Europe/Berlin" }],
    ["often", { cron: "*/5 * * * *" }],
  ]) {
    const runtime = { scripted: { steps: [{ succeed: HOSTILE }] } };
    const task = { spec: { target: { agent: "script" }, runtime } };
    await api("POST", `namespaces/default/schedules?scheduleId=${name}`, { spec: { ...spec, task } });
  }
  await page.reload();
  const row = page.locator("tr", { hasText: "nightly" });
  await row.getByText("Europe/Berlin").waitFor();
  assert.equal(await row.getByRole("listitem").count(), 3);
  await page.getByRole("button", { name: "Pause nightly" }).focus();
  await page.keyboard.press("Enter");
  await row.getByText("paused", { exact: true }).waitFor();
  assert.equal((await api("GET", "namespaces/default/schedules/nightly")).spec.paused, true);
  await fits(page, "schedules");
  await accessible(page, "schedules, dark");
  await page.emulateMedia({ colorScheme: "light" });
  await accessible(page, "schedules, light");
  await page.getByRole("button", { name: "Resume nightly" }).click();
  await row.getByRole("listitem").first().waitFor();
  await page.getByRole("button", { name: "Run now: nightly" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Run now" }).click();
  // Without a reload: the feed of tasks shows that it has ended.
  await row.locator(".state.succeeded").waitFor();
  await row.getByRole("link", { name: "Last run of nightly" }).click();
  await page.getByText(HOSTILE, { exact: true }).first().waitFor();
  await page.context().close();
});

test("a run that is a workflow without tasks shows that it has ended", async () => {
  const spec = { steps: [{ name: "hold", wait: { duration: "0s" } }] };
  const schedule = { spec: { cron: "0 3 * * *", workflow: { spec } } };
  await api("POST", "namespaces/default/schedules?scheduleId=flows", schedule);
  const page = await phone("light");
  await page.getByRole("link", { name: "Schedules" }).click();
  await page.getByRole("button", { name: "Run now: flows" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Run now" }).click();
  // Without a reload: only the feed of workflows has its end.
  await page.locator("tr", { hasText: "flows" }).locator(".state.succeeded").waitFor();
  await page.context().close();
});

test("the system shows its parts, and its breakers are reset", async () => {
  const page = await phone("light");
  const read = [];
  page.on("request", (request) => request.url().endsWith("/system/status") && read.push(request.url()));
  await page.getByRole("link", { name: "System" }).click();
  await page.locator(".bar .state.healthy").waitFor();
  await page.getByRole("region", { name: "Background tasks" }).getByRole("cell").first().waitFor();
  const failure = { fail: { class: "auth", message: HOSTILE } };
  // The task is not to blame: it waits.
  const name = await scripted("refused", [failure]);
  const breakers = page.getByRole("region", { name: "Circuit breakers" });
  await breakers.getByText("<img src=x onerror=alert(1)>[U+202E]").waitFor();
  assert.deepEqual(read, [], "the state is pushed, and not read");
  await fits(page, "system");
  await accessible(page, "system, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "system, dark");
  await api("POST", `${name}:cancel`, {});
  await breakers.getByRole("button", { name: "Reset script" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
  await breakers.waitFor({ state: "detached" });
  const filter = page.getByLabel("Log filter");
  const before = await filter.inputValue();
  await filter.fill("rota_server=nonsense");
  await page.getByRole("button", { name: "Set filter" }).click();
  await page.getByRole("alert").waitFor();
  await filter.fill("warn");
  await page.keyboard.press("Enter");
  await page.getByText("Saved.").waitFor();
  assert.equal((await api("GET", "system/logFilter")).filter, "warn");
  // What another admin sets meanwhile is read when the tab has the focus again, and what is typed stays.
  await filter.fill("info");
  await api("PUT", "system/logFilter", { filter: "error" });
  await page.evaluate(() => dispatchEvent(new Event("visibilitychange")));
  const changed = page.getByText("It is error now.");
  await changed.waitFor();
  assert.equal(await filter.inputValue(), "info");
  await filter.press("Enter");
  await changed.waitFor({ state: "detached" });
  assert.equal((await api("GET", "system/logFilter")).filter, "info");
  // What is typed while a call is under way stays, and was not changed by someone else.
  const call = await hold(page, /system\/logFilter$/);
  await filter.fill("warn");
  await filter.press("Enter");
  await call.held;
  await filter.fill("debug");
  call.release();
  await page.getByText("Saved.", { exact: true }).waitFor();
  assert.equal(await filter.inputValue(), "debug");
  const address = page.getByLabel("Address of a trace");
  await address.fill("javascript:alert('{trace}')");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "begins with https://" }).waitFor();
  await address.fill("https://traces.invalid/trace/{trace}");
  await page.keyboard.press("Enter");
  await page.getByText("Address kept.").waitFor();
  await api("PUT", "system/logFilter", { filter: before });
  const { traceId } = (await api("GET", name)).status;
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const link = page.getByRole("link", { name: traceId });
  assert.equal(await link.getAttribute("href"), `https://traces.invalid/trace/${traceId}`);
  await page.context().close();
});

test("the system shows the replicas of a database", async () => {
  const replica = (name, owner, lease) => ({ name, owner, version: "1.0.0", address: `${name}:7600`, lease });
  const status = {
    ...(await api("GET", "system/status")),
    replicas: [replica("rota-0", true, "7.5s"), replica(HOSTILE, false, "9s")],
  };
  const page = await phone("light");
  // `rota dev` has a database of its own, without replicas.
  await page.route(/system\/status:watch/, (route) =>
    route.fulfill({
      contentType: "text/event-stream",
      body: `data: ${JSON.stringify(status)}\n\nevent: end\ndata: {}\n\n`,
    }),
  );
  await page.keyboard.press("y");
  const rows = page.getByRole("region", { name: "Replicas" }).locator("tbody tr");
  await rows.filter({ hasText: "owner" }).getByText("rota-0", { exact: true }).waitFor();
  await rows
    .filter({ hasText: "stands by" })
    .getByText("<img src=x onerror=alert(1)>[U+202E]", { exact: true })
    .waitFor();
  assert.deepEqual(await rows.locator("td:last-child").allInnerTexts(), ["7.5s", "9s"]);
  await fits(page, "replicas");
  await accessible(page, "replicas, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "replicas, dark");
  await page.context().close();
});

nothingFailed();
