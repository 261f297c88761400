// Live pages, several of them at a time, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  adminToken,
  api,
  base,
  browser,
  eventually,
  follow,
  hasWaiting,
  isLive,
  newPage,
  newToken,
  noteStream,
  nothingFailed,
  receives,
  run,
  scripted,
  setUp,
  setVisible,
  shell,
  show,
  signedIn,
  signIn,
} from "./harness.mjs";

setUp();

test("several tabs work at a time", async () => {
  const context = await browser.newContext({ locale: "en-US" });
  const pages = [];
  for (let index = 0; index < 5; index += 1) {
    pages.push(await signIn(context));
  }
  await shell("true", "--title", "seen by all");
  for (const page of pages) {
    await show(page, "seen by all");
  }
  await context.close();
});

test("tabs out of view hold no connections, and catch up", async () => {
  const context = await browser.newContext({ locale: "en-US" });
  const pages = [];
  for (let index = 0; index < 8; index += 1) {
    const page = await signIn(context);
    await setVisible(page, false);
    pages.push(page);
  }
  // The feed of one of them updates the titles of all.
  const name = await scripted("a call", [{ ask: "Are you there?" }, { succeed: "yes" }]);
  for (const page of pages) {
    await hasWaiting(page, 1);
  }
  await api("POST", `${name}:cancel`, {});
  await shell("true", "--title", "seen later");
  await setVisible(pages[5], true);
  await show(pages[5], "seen later");
  await context.close();
});

test("windows go on together once one is signed in again", async () => {
  const context = await browser.newContext({ locale: "en-US" });
  const leader = await signIn(context);
  await setVisible(leader, false);
  const page = await signIn(context);
  await newToken();
  await leader.getByText("Sign in again").waitFor();
  // Any call of its page, if its own stream has not asked yet.
  await page.keyboard.press("w");
  await page.getByLabel("Token").fill(adminToken());
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "Tasks" }).click();
  const name = await scripted("a late call", [{ ask: "Who leads?" }, { succeed: "you" }]);
  await show(page, "a late call");
  await hasWaiting(page, 1);
  // The other one has the same session.
  await hasWaiting(leader, 1);
  await api("POST", `${name}:cancel`, {});
  for (const one of [page, leader]) {
    await hasWaiting(one, 0);
  }
  await context.close();
});

test("a window whose stream is refused leaves it to the others", async () => {
  const context = await browser.newContext({ locale: "en-US" });
  const leader = await newPage(context);
  const refusal = { status: 403, json: { code: 7, message: "this window may not" } };
  await leader.route(/tasks:watch/, (route) => route.fulfill(refusal));
  await leader.goto((await run(["ui"])).trim());
  await leader.getByText("this window may not").waitFor();
  const page = await signIn(context);
  await shell("true", "--title", "seen by the other");
  await show(page, "seen by the other");
  await show(leader, "seen by the other");
  await leader.getByText("this window may not").waitFor({ state: "detached" });
  await context.close();
});

test("a call that gets no connection is explained", async () => {
  const page = await signedIn();
  await page.route(/workflows/, () => {});
  await page.getByRole("link", { name: "Workflows" }).click();
  await page.getByText("close other windows").waitFor();
  await page.context().close();
});

test("a silent stream is noticed", async () => {
  const page = await signedIn();
  await page.clock.install();
  await shell("echo the last word; sleep 1000", "--title", "a quiet one");
  await show(page, "a quiet one");
  await page.getByRole("link", { name: "a quiet one" }).click();
  // From the stream: it is open, and the time of its silence runs.
  await page.locator(".log").getByText("the last word").waitFor();
  // More than the time between two signs of life of the server; the pause before the next attempt has then begun.
  await page.clock.pauseAt((await page.evaluate(() => Date.now())) + 60_000);
  await page.getByText("the control plane is silent").waitFor();
  await page.clock.resume();
  await page.getByText("Connection lost").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.locator(".state.cancelled").first().waitFor();
  await page.context().close();
});

test("a task that is deleted leaves the board within a minute", async () => {
  // No worker runs these.
  const queued = (title) => scripted(title, [], { target: { agent: "missing" } });
  const [name, other] = [await queued("the deleted one"), await queued("the other one")];
  await api("POST", `${name}:cancel`, {});
  const page = await signedIn();
  await page.clock.install();
  await noteStream(page);
  await page.goto(`${base}/tasks?view=board`);
  const column = page.getByRole("region", { name: "Cancelled", exact: true });
  await column.getByText("the deleted one").waitFor();
  await isLive(page);
  await api("POST", `${other}:cancel`, {});
  // The stream continues from the position of this change, without a reading.
  await receives(page, "the other one");
  await column.getByText("the other one").waitFor();
  await api("POST", "system:prune", { task: name });
  await page.clock.fastForward(60_000);
  await column.getByText("the deleted one").waitFor({ state: "detached" });
  assert.equal(await column.getByText("the other one").count(), 1);
  await page.context().close();
});

test("a task that is deleted leaves the table within a minute", async () => {
  // No worker runs these.
  const queued = (title) => scripted(title, [], { target: { agent: "missing" } });
  const names = [await queued("reached"), await queued("removed"), await queued("left there")];
  for (const name of names) {
    await api("POST", `${name}:cancel`, {});
  }
  const page = await signedIn();
  await page.clock.install();
  const read = [];
  page.on("requestfinished", (request) => /filter\.states=/.test(request.url()) && read.push(request.url()));
  await page.goto(`${base}/tasks?state=CANCELLED`);
  const link = (name) => page.getByRole("link", { name, exact: true });
  // Once when it is opened, and once when its stream is: what is deleted after that, neither shows.
  await eventually(() => read.length >= 2, "the list is read");
  await page.getByLabel("Select removed").check();
  await page.getByText("1 selected.").waitFor();
  const current = page.locator('tr[aria-current="true"]');
  for (const title of ["left there", "removed", "reached"]) {
    await page.keyboard.press("j");
    await current.filter({ hasText: title }).waitFor();
  }
  await api("POST", "system:prune", { task: names[1] });
  await page.clock.fastForward(60_000);
  await link("removed").waitFor({ state: "detached" });
  await eventually(() => read.some((url) => /filter\.createdBefore=/.test(url)), "newer tasks are not read");
  assert.equal(await link("left there").count(), 1);
  assert.equal(await page.getByText("1 selected.").count(), 0);
  assert.match(await current.textContent(), /reached/);
  await page.context().close();
});

test("errors of streams and calls are shown", async () => {
  const page = await signedIn();
  await page.goto(`${base}/workflows/default/nothing`);
  await page.getByText("WORKFLOW_NOT_FOUND").waitFor();
  await page.goto(`${base}/tasks?agent=NOT%20VALID`);
  await page.getByText("INVALID_FIELD").waitFor();
  await page.context().close();
});

test("agents are live", async () => {
  const page = await signedIn();
  await page.getByRole("link", { name: "Agents" }).click();
  const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "script" });
  const running = (count) => row.locator("td:nth-child(5)", { hasText: new RegExp(`^${count}$`) }).waitFor();
  await running(0);
  const name = await scripted("hanging", [{ hang: true }]);
  await running(1);
  await api("POST", `${name}:cancel`, {});
  await running(0);
  for (const agent of ["first", "second"]) {
    const spec = { runtime: { command: {} } };
    await api("POST", `namespaces/default/agents?agentId=${agent}`, { spec });
  }
  const cell = (name) =>
    page.getByRole("region", { name: "Agents" }).getByRole("cell", { name, exact: true });
  await cell("second").waitFor();
  // As with more agents than a page has.
  await page.route(/agents\?pageSize=200/, (route) =>
    route.continue({ url: route.request().url().replace("pageSize=200", "pageSize=1") }),
  );
  await page.reload();
  await cell("first").waitFor();
  assert.equal(await cell("second").count(), 0);
  const more = page.getByRole("button", { name: "Show more agents" });
  await more.click();
  await cell("script").waitFor();
  await more.click();
  await cell("second").waitFor();
  await page.context().close();
});

test("workflows and approvals are live in all tabs by one stream, and nothing is polled", async () => {
  const context = await browser.newContext({ locale: "en-US" });
  const asked = [];
  const opened = async (one) => {
    await one.getByRole("link", { name: "Workflows" }).click();
    await one.getByText("There are no workflows").waitFor();
  };
  const page = await signIn(context);
  await opened(page);
  // Its stream, which is that of both tabs, has begun.
  await follow(page, "workflows");
  await page.getByText("There are no workflows").waitFor();
  const other = await signIn(context);
  await opened(other);
  for (const one of [page, other]) {
    one.on("request", (request) => asked.push(new URL(request.url()).pathname));
  }
  const steps = [{ name: "look", approval: { prompt: "Go <b>on</b>\u202e?" } }];
  const create = (title) => api("POST", "namespaces/default/workflows", { spec: { title, steps } });
  const { name } = await create("a live one");
  for (const one of [page, other]) {
    await one.getByRole("button", { name: "Show 1 new" }).click();
    await one.getByRole("link", { name: "a live one" }).waitFor();
    await hasWaiting(one, 1);
  }
  const read = asked.length;
  await api("POST", `${name}:decide`, { step: "look", decision: "STEP_DECISION_APPROVE" });
  for (const one of [page, other]) {
    await one.locator("tr", { hasText: "a live one" }).locator(".state.succeeded").waitFor();
    await hasWaiting(one, 0);
  }
  // Alerts, which nothing pushes, are read twice a minute.
  const again = asked.slice(read).filter((path) => !path.endsWith("/alerts"));
  assert.deepEqual(again, [], "what the stream has is not read again");
  // The other tab continues without the one that had the stream.
  await page.close();
  await create("a later one");
  await other.getByRole("button", { name: "Show 1 new" }).waitFor();
  await other.getByRole("link", { name: /Inbox/ }).click();
  await other.getByText("Go <b>on</b>[U+202E]?").waitFor();
  await other.getByRole("button", { name: "Reject look" }).click();
  await other.getByText("Nothing waits for a person.").waitFor();
  await context.close();
});

nothingFailed();
