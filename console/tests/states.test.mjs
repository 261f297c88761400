// States of pages that others reach by chance: still loading, failed, empty, and with texts from right to left, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessible,
  api,
  base,
  fits,
  nothingFailed,
  scripted,
  settled,
  setUp,
  signedIn,
  titled,
  until,
} from "./harness.mjs";

setUp();

/** Calls of the API to collections or streams of these names. */
const calls = (names, end = "\\?") => new RegExp(`/api/v1/.*/(${names})${end}`);

/** Paths of pages, with the calls that fill each, and the text that it has when it is complete and empty. */
const PAGES = {
  inbox: [calls("tasks|approvals"), "Nothing waits for a person."],
  tasks: [calls("tasks"), "No task matches"],
  "tasks?view=board": [calls("tasks"), "Succeeded 0"],
  workflows: [calls("workflows"), "There are no workflows in this namespace."],
  agents: [calls("agents|workers"), "There are no agents in this namespace."],
  schedules: [calls("schedules"), "There are no schedules in this namespace."],
  costs: [calls("budgets|spending"), "Nothing was spent, and there are no budgets."],
  alerts: [calls("alerts", "$"), "Nothing is wrong."],
  // Its charts are there also without anything that has happened.
  metrics: [calls("metricsHistory"), "by the minute"],
  system: [calls("status:watch", "$"), "Background tasks"],
};

const PHONE = { width: 360, height: 640 };
const REFUSED = { code: 7, message: "the token of this browser may not read it", details: [] };

for (const colorScheme of ["light", "dark"]) {
  test(`pages that load, have failed or are empty are accessible and fit, ${colorScheme}`, async () => {
    const page = await signedIn({ colorScheme, viewport: PHONE });
    await page.getByLabel("Namespace").fill("empty");
    await page.keyboard.press("Enter");
    await page.getByText("No task matches").waitFor();
    for (const [path, [filling, empty]] of Object.entries(PAGES)) {
      const check = async (state) => {
        await accessible(page, `${path}, ${state}, ${colorScheme}`);
        await fits(page, `${path}, ${state}`);
      };
      const loading = page.getByRole("status").filter({ hasText: "Loading…" }).first();
      await page.route(filling, () => {});
      await page.goto(`${base}/${path}`);
      await loading.waitFor();
      const early = page.getByRole("paragraph").filter({ hasText: empty });
      assert.equal(await early.count(), 0, `${path} is called empty before it is read`);
      await check("loading");
      await page.unrouteAll();
      await page.route(filling, (route) => route.fulfill({ status: 403, json: REFUSED }));
      await page.goto(`${base}/${path}`);
      const alert = page.getByRole("main").getByRole("alert").filter({ hasText: REFUSED.message });
      await alert.first().waitFor();
      await loading.waitFor({ state: "detached" });
      await check("failed");
      await page.unrouteAll();
      await page.goto(`${base}/${path}`);
      await page.getByText(empty).first().waitFor();
      await loading.waitFor({ state: "detached" });
      await check("empty");
    }
    await page.context().close();
  });
}

test("a page of something that does not exist shows an error", async () => {
  const page = await signedIn({ viewport: PHONE });
  const missing = "00000000-0000-4000-8000-000000000000";
  for (const kind of ["tasks", "workflows"]) {
    await page.goto(`${base}/${kind}/default/${missing}`);
    await page.getByRole("main").getByRole("alert").first().waitFor();
    assert.equal(await page.getByText("Loading…").count(), 0, kind);
    await accessible(page, `no such ${kind}`);
    await fits(page, `no such ${kind}`);
  }
  await page.context().close();
});

/** Keys of pages, with the heading of each, which is the title of its tab. */
const KEYS = {
  i: "Inbox",
  w: "Workflows",
  a: "Agents and workers",
  s: "Schedules",
  c: "Costs and budgets",
  l: "Alerts",
  m: "Metrics",
  y: "System",
  d: "HTTP API",
  t: "Tasks",
};

test("each page names its tab, and has the focus once a navigation has opened it", async () => {
  const name = await scripted("one of many", [{ succeed: "done" }]);
  await until(name, "TASK_STATE_SUCCEEDED");
  const page = await signedIn();
  const focused = () => page.evaluate(() => document.activeElement?.tagName);
  const isAt = (heading) =>
    page.waitForFunction((heading) => {
      const at = document.activeElement;
      return at?.tagName === "H1" && at.textContent === heading;
    }, heading);
  await titled(page, "Tasks · Rota");
  assert.equal(await focused(), "BODY", "no page was left");
  for (const [key, heading] of Object.entries(KEYS)) {
    await page.keyboard.press(key);
    await isAt(heading);
    await titled(page, `${heading} · Rota`);
  }
  // The heading of a task takes the focus over once its title is read.
  await page.getByRole("link", { name: "one of many" }).waitFor();
  await settled(page);
  await page.keyboard.press("j");
  await page.locator('tr[aria-current="true"]').waitFor();
  await page.keyboard.press("Enter");
  await isAt("one of many");
  await titled(page, "Task · one of many · Rota");
  await page.goBack();
  await isAt("Tasks");
  // A filter opens no page.
  await page.getByLabel("Owner").fill("none");
  await page.keyboard.press("Enter");
  await page.getByText("No task matches").waitFor();
  assert.notEqual(await focused(), "H1");
  await page.goto(`${base}/nowhere`);
  await page.getByRole("heading", { name: "There is no such page." }).waitFor();
  await titled(page, "No such page · Rota");
  await page.context().close();
});

test("a window of an older version offers to reload it, and keeps what was typed", async () => {
  const page = await signedIn({ viewport: PHONE });
  // The files of the window do not exist any more after an upgrade.
  await page.route(/assets\/(Palette|SystemPage)[^/]*\.js$/, (route) => route.fulfill({ status: 404 }));
  const owner = page.getByLabel("Owner");
  await owner.fill("someone");
  await page.keyboard.press("Control+k");
  const isOlder = page.getByRole("alert").filter({ hasText: "this window is of the older version" });
  await page.getByRole("dialog", { name: "Find" }).filter({ has: isOlder }).waitFor();
  await accessible(page, "a part of an older version");
  await fits(page, "a part of an older version");
  await page.keyboard.press("Escape");
  await isOlder.waitFor({ state: "detached" });
  assert.equal(await owner.inputValue(), "someone");
  await page.getByRole("link", { name: "System" }).click();
  await page.getByRole("main").filter({ has: isOlder }).waitFor();
  await accessible(page, "a page of an older version");
  await page.unrouteAll();
  await page.getByRole("button", { name: "Reload" }).click();
  await page.getByRole("heading", { name: "System" }).waitFor();
  await page.context().close();
});

test("what could not be loaded is loaded when it is opened again", async () => {
  const page = await signedIn();
  await page.route(/assets\/(Palette|SystemPage|Chart|ApiPage)[^/]*\.(js|css)$/, (route) => route.abort());
  const lost = page.getByRole("alert").filter({ hasText: "If the connection was lost" });
  const find = page.getByRole("dialog", { name: "Find" });
  for (const key of ["y", "m", "d"]) {
    await page.keyboard.press(key);
    await page.getByRole("main").filter({ has: lost }).waitFor();
    await page.keyboard.press("t");
    await page.getByRole("heading", { name: "Tasks" }).waitFor();
  }
  await page.keyboard.press("Control+k");
  await find.filter({ has: lost }).waitFor();
  await page.keyboard.press("Escape");
  await page.unrouteAll();
  await page.keyboard.press("y");
  await page.getByRole("heading", { name: "System" }).waitFor();
  // Each with its style sheet.
  const styleOf = (selector, name) =>
    page
      .locator(selector)
      .first()
      .evaluate((element, name) => getComputedStyle(element)[name], name);
  await page.keyboard.press("m");
  assert.equal(await styleOf(".u-over", "position"), "absolute");
  await page.keyboard.press("d");
  assert.notEqual(await styleOf(".swagger-ui", "fontFamily"), await styleOf("body", "fontFamily"));
  await page.keyboard.press("Control+k");
  await find.getByRole("combobox").waitFor();
  await page.context().close();
});

test("texts from right to left turn nothing around them", async () => {
  const [title, question] = ["מטלה דחופה (12)", "أي طريق؟ left, or right (2)"];
  const name = await scripted(title, [{ ask: question }]);
  for (const colorScheme of ["light", "dark"]) {
    const page = await signedIn({ colorScheme, viewport: PHONE });
    const link = page.getByRole("link", { name: title, exact: true });
    const row = page.locator("tr").filter({ has: link });
    await row.locator(".state").waitFor();
    const [state, shown] = [await row.locator(".state").boundingBox(), await link.boundingBox()];
    assert.ok(state.x + state.width <= shown.x, "the state is left of the title");
    await accessible(page, `a title from right to left, ${colorScheme}`);
    await fits(page, "a title from right to left");
    await page.getByRole("link", { name: /Inbox/ }).click();
    const card = page.getByRole("article", { name: title, exact: true });
    await card.getByText(question, { exact: true }).waitFor();
    await accessible(page, `a question from right to left, ${colorScheme}`);
    await fits(page, "a question from right to left");
    await card.getByRole("link", { name: title, exact: true }).click();
    await page.getByRole("heading", { name: title, exact: true }).waitFor();
    await accessible(page, `a task from right to left, ${colorScheme}`);
    await fits(page, "a task from right to left");
    await page.context().close();
  }
  await api("POST", `${name}:cancel`, {});
});

nothingFailed();
