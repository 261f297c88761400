// The palette, the board and actions on many tasks, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessible,
  api,
  base,
  eventually,
  fits,
  follow,
  isLive,
  noteStream,
  nothingFailed,
  receives,
  scripted,
  setUp,
  setVisible,
  show,
  signedIn,
  until,
} from "./harness.mjs";

setUp();

const HOSTILE = "<img src=x onerror=alert(1)>\u202e";
const dialogOf = (page, name) => page.getByRole("dialog", { name });
const dialog = (page) => dialogOf(page, "Find");

test("pages, tasks and commands are found by keyboard and pointer", async () => {
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  const name = await scripted(`needle ${HOSTILE}`, [{ succeed: "found" }]);
  await until(name, "TASK_STATE_SUCCEEDED");
  await page.reload();
  await page.getByRole("link", { name: /needle/ }).waitFor();
  await page.keyboard.press("Control+k");
  const box = dialog(page).getByRole("combobox");
  await box.waitFor();
  await page.keyboard.type("sched");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Schedules" }).waitFor();
  // By pointer.
  await page.getByRole("button", { name: "Find" }).click();
  await box.fill("needle");
  const found = dialog(page).getByRole("option", { name: "needle <img src=x onerror=alert(1)>[U+202E]" });
  await found.waitFor();
  await fits(page, "palette");
  await accessible(page, "palette, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "palette, dark");
  await found.click();
  await page.getByRole("heading", { name: /needle/ }).waitFor();
  // Any task by its id; then a name that nothing has.
  await page.keyboard.press("Control+k");
  await box.fill(name.split("/").at(-1));
  await dialog(page)
    .getByRole("option", { name: /Open the task/ })
    .click();
  await page.getByRole("heading", { name: /needle/ }).waitFor();
  await page.keyboard.press("Control+k");
  await box.fill("!?");
  await dialog(page).getByText("Nothing has this name.").waitFor();
  await page.keyboard.press("Escape");
  await dialog(page).waitFor({ state: "detached" });
  await page.keyboard.press("Control+k");
  await box.fill("keyboard shortcuts");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Keyboard" }).getByText("Find a page, a task").waitFor();
  await page.context().close();
});

test("tasks are found that no page shows, and those beyond the first of a long list", async () => {
  const page = await signedIn();
  const runtime = { scripted: { steps: [{ succeed: "done" }] } };
  const create = (title, more) =>
    api("POST", "namespaces/default/tasks", {
      spec: { title, target: { agent: "script" }, runtime },
      ...more,
    });
  const tasks = [await create("old one", { alias: "far-away" }), await create("deep down")];
  for (let index = 0; index < 55; index += 1) {
    tasks.push(await create(`on top ${index}`));
  }
  await show(page, "deep down");
  await page.keyboard.press("Control+k");
  const box = dialog(page).getByRole("combobox");
  await box.fill("deep");
  await dialog(page).getByRole("option", { name: "deep down" }).waitFor();
  await page.keyboard.press("Escape");
  await page.goto(`${base}/tasks?owner=none`);
  await page.getByText("No task matches").waitFor();
  await page.keyboard.press("Control+k");
  await box.fill("far-away");
  await dialog(page).getByRole("option", { name: "old one" }).click();
  await page.getByRole("heading", { name: "old one" }).waitFor();
  await page.context().close();
  // They would move on the board of the next test.
  for (const { name } of tasks) {
    await until(name, "TASK_STATE_SUCCEEDED");
  }
});

test("the board has a column for each state, live", async () => {
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  await follow(page);
  const begin = Date.now();
  await page.getByRole("link", { name: "Board" }).click();
  await page.getByRole("region", { name: "Board" }).waitFor();
  const card = (column, title) =>
    page.getByRole("region", { name: column, exact: true }).getByRole("article").filter({ hasText: title });
  await page.getByText("Loading…").first().waitFor({ state: "detached" });
  const read = [];
  page.on("request", (request) => /filter\.states=/.test(request.url()) && read.push(request.url()));
  const name = await scripted(`moving ${HOSTILE}`, [{ ask: "On?" }, { succeed: "done" }]);
  await card("Needs a person", "moving <img src=x onerror=alert(1)>[U+202E]").waitFor();
  const { status } = await api("GET", name);
  const [{ requestId }] = status.pendingInput;
  await api("POST", `${name}:sendInput`, { input: { requestId, text: "yes" } });
  await card("Succeeded", "moving").waitFor();
  await card("Needs a person", "moving").waitFor({ state: "detached" });
  // All six columns are read once a minute all the same.
  const most = 6 * Math.floor((Date.now() - begin) / 60_000);
  assert.ok(read.length <= most, `cards are moved by the feed, and not read: ${read}`);
  await fits(page, "board");
  await accessible(page, "board, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "board, dark");
  await page.reload();
  await card("Succeeded", "moving").getByRole("link").focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /moving/ }).waitFor();
  await page.goBack();
  await page.getByRole("link", { name: "Table" }).click();
  await page.getByRole("columnheader", { name: "Task" }).waitFor();
  await page.context().close();
});

test("new tasks are counted as the filter of the list has them", async () => {
  const page = await signedIn();
  await page.clock.install();
  await noteStream(page);
  const [begun, finished] = [[], []];
  page.on("request", (request) => /filter\.owner=mine/.test(request.url()) && begun.push(request));
  page.on("requestfinished", (request) => begun.includes(request) && finished.push(request));
  await page.goto(`${base}/tasks?owner=mine`);
  await page.getByText("No task matches").waitFor();
  await isLive(page);
  // Once when it is opened, and once when its stream is.
  await eventually(() => finished.length === 2, "the list is read");
  await setVisible(page, false);
  // No worker runs these.
  const queued = (title, owner) => scripted(title, [], { owner, target: { agent: "missing" } });
  const names = [await queued("one of others", "others"), await queued("another of others", "others")];
  await receives(page, "another of others");
  await page.clock.fastForward(10_000);
  // A call after those of the interval, if there were any: once it is answered, they are known.
  await page.evaluate(() => fetch(location.href).then(({ status }) => status));
  assert.equal(begun.length, 2, "out of view nothing is read");
  await setVisible(page, true);
  await page.clock.fastForward(10_000);
  await eventually(() => finished.length >= 3, "the list is read");
  names.push(await queued("one of mine", "mine"));
  await receives(page, "one of mine");
  await page.clock.fastForward(10_000);
  const fresh = page.getByRole("button", { name: /^Show/ });
  await fresh.waitFor();
  assert.equal(await fresh.textContent(), "Show 1 new");
  await fresh.click();
  await page.getByRole("link", { name: "one of mine" }).waitFor();
  assert.equal(await page.getByRole("link", { name: /others/ }).count(), 0);
  await fresh.waitFor({ state: "detached" });
  for (const name of names) {
    await api("POST", `${name}:cancel`, {});
  }
  await page.context().close();
});

test("a task that comes to match the filter later than newer ones is counted", async () => {
  const late = { owner: "late", target: { agent: "missing" } };
  const older = await scripted("an older one", [], late);
  const newer = await scripted("a newer one", [], late);
  await api("POST", `${newer}:cancel`, {});
  await until(newer, "TASK_STATE_CANCELLED");
  const page = await signedIn();
  await page.clock.install();
  await noteStream(page);
  const finished = [];
  page.on("requestfinished", (request) => /filter\.owner=late/.test(request.url()) && finished.push(request));
  await page.goto(`${base}/tasks?owner=late&state=CANCELLED`);
  await page.getByRole("link", { name: "a newer one" }).waitFor();
  await isLive(page);
  // Once when it is opened, and once when its stream is.
  await eventually(() => finished.length === 2, "the list is read");
  await api("POST", `${older}:cancel`, {});
  await receives(page, "an older one");
  await page.clock.fastForward(10_000);
  await page.getByRole("button", { name: "Show 1 new" }).click();
  await page.getByRole("link", { name: "an older one" }).waitFor();
  await page.context().close();
});

test("a task that comes to match the filter below the first page is counted", async () => {
  const deep = { owner: "deep", target: { agent: "missing" } };
  const names = [];
  for (const title of ["the lowest", "the late one", "the third", "the second", "the first"]) {
    names.push(await scripted(title, [], deep));
  }
  const [lowest, late, ...others] = names;
  for (const name of [lowest, ...others]) {
    await api("POST", `${name}:cancel`, {});
    await until(name, "TASK_STATE_CANCELLED");
  }
  const page = await signedIn();
  await page.clock.install();
  await noteStream(page);
  // As with more tasks than a page has.
  await page.route(/tasks\?pageSize=100/, (route) =>
    route.continue({ url: route.request().url().replace("pageSize=100", "pageSize=3") }),
  );
  const finished = [];
  page.on("requestfinished", (request) => /filter\.owner=deep/.test(request.url()) && finished.push(request));
  await page.goto(`${base}/tasks?owner=deep&state=CANCELLED`);
  await page.getByRole("link", { name: "the third" }).waitFor();
  await isLive(page);
  // Once when it is opened, and once when its stream is.
  await eventually(() => finished.length === 2, "the list is read");
  await page.getByRole("button", { name: "Show more" }).click();
  await page.getByRole("link", { name: "the lowest" }).waitFor();
  // Two pages are counted half as often, whether or not the tab stays in view.
  await page.clock.fastForward(10_000);
  await setVisible(page, false);
  await setVisible(page, true);
  await api("POST", `${late}:cancel`, {});
  await receives(page, "the late one");
  await page.clock.fastForward(10_000);
  await page.getByRole("button", { name: "Show 1 new" }).click();
  await page.getByRole("link", { name: "the late one" }).waitFor();
  await page.context().close();
});

test("all tasks that match are cancelled, also those that are not listed, with their number first", async () => {
  const names = [];
  for (let index = 0; index < 12; index += 1) {
    const spec = { owner: "many" };
    names.push(await scripted(`many ${index}`, [{ hang: true }], spec));
  }
  const page = await signedIn();
  // As with more tasks than a page has.
  await page.route(/tasks\?pageSize=100/, (route) =>
    route.continue({ url: route.request().url().replace("pageSize=100", "pageSize=5") }),
  );
  await page.getByLabel("Owner").fill("many");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/owner=many/);
  // The address changes first: once the page follows, its links have the filter.
  await page.getByRole("link", { name: "Table" }).and(page.locator('[href*="owner=many"]')).waitFor();
  await page.getByRole("button", { name: "All that match" }).click();
  const dialog = dialogOf(page, "All tasks that match");
  await dialog.getByRole("button", { name: "Count them" }).focus();
  await page.keyboard.press("Enter");
  await dialog.getByText("Cancel 12 tasks?").waitFor();
  await accessible(page, "a change of all");
  // What is created after the count is left alone.
  const later = await scripted("many, later", [{ hang: true }], { owner: "many" });
  let isBroken = true;
  await page.route(/tasks:change$/, (route) => (isBroken ? route.abort() : route.continue()));
  await dialog.getByRole("button", { name: "Cancel 12 tasks" }).click();
  await dialog.getByRole("alert").waitFor();
  isBroken = false;
  await dialog.getByRole("button", { name: "Continue" }).click();
  await dialog.getByText("12 of 12 tasks changed.").waitFor();
  for (const name of names) {
    await until(name, "TASK_STATE_CANCELLED");
  }
  assert.doesNotMatch((await api("GET", later)).status.state, /CANCELLED/);
  await api("POST", `${later}:cancel`, {});
  // There is nothing left.
  await dialog.getByRole("button", { name: "Close" }).click();
  await until(later, "TASK_STATE_CANCELLED");
  await page.getByRole("button", { name: "All that match" }).click();
  await dialog.getByLabel("Action").selectOption("Set priority");
  await dialog.getByLabel("Priority, from 0 to 10").fill("8");
  await page.keyboard.press("Enter");
  await dialog.getByText("No task matches to which this applies.").waitFor();
  await page.context().close();
});

test("the priority of several tasks is set", async () => {
  const page = await signedIn();
  const names = [];
  for (const title of ["urgent one", "urgent two"]) {
    names.push(await scripted(title, [], { target: { agent: "missing" } }));
    await show(page, title);
    await page.getByLabel(`Select ${title}`).check();
  }
  await page.getByRole("button", { name: "Set priority" }).click();
  const form = dialogOf(page, "Set priority");
  await form.getByText("Set priority of 2 tasks?").waitFor();
  await form.getByLabel("Priority, from 0 to 10").fill("8");
  await accessible(page, "priority");
  await page.keyboard.press("Enter");
  for (const title of ["urgent one", "urgent two"]) {
    await page.locator("tr", { hasText: title }).getByRole("cell", { name: "8", exact: true }).waitFor();
  }
  for (const name of names) {
    assert.equal((await api("GET", name)).priority, 8);
    await api("POST", `${name}:cancel`, {});
  }
  await page.context().close();
});

test("a priority that someone else has set meanwhile is not overwritten unseen", async () => {
  const page = await signedIn();
  const name = await scripted("a contested one", [], { target: { agent: "missing" } });
  await show(page, "a contested one");
  await page.getByLabel("Select a contested one").check();
  const button = page.getByRole("button", { name: "Set priority" });
  await button.click();
  const form = dialogOf(page, "Set priority");
  await form.getByLabel("Priority, from 0 to 10").fill("8");
  await api("PATCH", `${name}?updateMask=priority`, { priority: 9 });
  // The list behind the dialog may know by now; the person does not.
  const row = page.locator("tr", { hasText: "a contested one" });
  await row.getByText("9", { exact: true }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "the priority is 9 now, and not 8" }).waitFor();
  assert.equal((await api("GET", name)).priority, 9);
  // Who has seen it may set it.
  await button.click();
  await form.getByLabel("Priority, from 0 to 10").fill("8");
  await page.keyboard.press("Enter");
  await row.getByRole("cell", { name: "8", exact: true }).waitFor();
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

test("a selection ends with its list", async () => {
  const page = await signedIn();
  const name = await scripted("selected", [{ hang: true }], { owner: "someone" });
  await show(page, "selected");
  const selected = page.getByText("1 selected.");
  const select = async () => {
    await page.getByLabel("Select selected").check();
    await selected.waitFor();
  };
  await select();
  // Another filter that shows the same task.
  await page.getByLabel("Owner").fill("someone");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/owner=someone/);
  await page.getByRole("link", { name: "selected" }).waitFor();
  await selected.waitFor({ state: "detached" });
  await select();
  await page.getByLabel("Namespace").fill("other");
  await page.keyboard.press("Enter");
  await page.getByText("No task matches").waitFor();
  await selected.waitFor({ state: "detached" });
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

nothingFailed();
