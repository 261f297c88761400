// Lists that the server has read before a change, and that arrive after it, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  api,
  base,
  follow,
  isLive,
  latch,
  noteStream,
  nothingFailed,
  receives,
  scripted,
  setUp,
  show,
  signedIn,
  until,
} from "./harness.mjs";

setUp();

/** Reads lists as they are now, and delivers them once `release` is called. */
async function hold(page, path) {
  const [isRead, read] = latch();
  const [isReleased, release] = latch();
  let isOver = false;
  await page.route(path, async (route) => {
    if (isOver) {
      // The page reads once more, and may be closed meanwhile: that must not be a call of the test.
      await route.fallback();
      return;
    }
    const response = await route.fetch();
    read();
    await isReleased;
    isOver = true;
    await route.fulfill({ response });
  });
  return { isRead, release };
}

const steps = [{ name: "look", approval: { prompt: "Is it good?" } }];
const workflow = (title) => api("POST", "namespaces/default/workflows", { spec: { title, steps } });

test("a list of tasks that is older than a change does not hide it", async () => {
  const page = await signedIn();
  await follow(page);
  const name = await scripted("changing", [{ hang: true }]);
  await show(page, "changing");
  await until(name, "TASK_STATE_RUNNING");
  const other = await scripted("another", [{ hang: true }]);
  const held = await hold(page, /tasks\?pageSize=100/);
  await page.getByRole("button", { name: /Show [0-9]+ new/ }).click();
  await held.isRead;
  await api("POST", `${name}:cancel`, {});
  const row = page.locator("tr", { hasText: "changing" });
  await row.locator(".state.cancelled").waitFor();
  held.release();
  await page.getByRole("link", { name: "another" }).waitFor();
  assert.equal(await row.locator(".state.cancelled").count(), 1);
  await api("POST", `${other}:cancel`, {});
  await page.context().close();
});

test("a list of workflows that is older than a change does not hide it", async () => {
  const page = await signedIn();
  await page.getByRole("link", { name: "Workflows" }).click();
  await page.getByText("There are no workflows").waitFor();
  await follow(page, "workflows");
  const { name } = await workflow("changing");
  await show(page, "changing");
  await workflow("another");
  const held = await hold(page, /workflows\?pageSize=100/);
  await page.getByRole("button", { name: "Show 1 new" }).click();
  await held.isRead;
  await api("POST", `${name}:decide`, { step: "look", decision: "STEP_DECISION_APPROVE" });
  const row = page.locator("tr", { hasText: "changing" });
  await row.locator(".state.succeeded").waitFor();
  held.release();
  await page.getByRole("link", { name: "another" }).waitFor();
  assert.equal(await row.locator(".state.succeeded").count(), 1);
  await page.context().close();
});

test("a task that changes while the board is read is in its column only", async () => {
  // No worker runs these.
  const queued = (title) => scripted(title, [], { target: { agent: "missing" } });
  const [name, other] = [await queued("leaving"), await queued("staying")];
  const page = await signedIn();
  await noteStream(page);
  const held = await hold(page, /filter.states=TASK_STATE_PENDING/);
  await page.goto(`${base}/tasks?view=board`);
  const column = (name) => page.getByRole("region", { name, exact: true });
  await held.isRead;
  await isLive(page);
  await api("POST", `${name}:cancel`, {});
  await receives(page, "leaving", "TASK_STATE_CANCELLED");
  await column("Cancelled").getByText("leaving").waitFor();
  held.release();
  await column("Waiting").getByText("staying").waitFor();
  assert.equal(await column("Waiting").getByText("leaving").count(), 0);
  await api("POST", `${other}:cancel`, {});
  await page.context().close();
});

test("a question that is answered while the inbox is read is not asked again", async () => {
  const ask = (title) => scripted(title, [{ ask: `Is it ${title}?` }, { succeed: "yes" }]);
  const name = await ask("answered");
  await until(name, "TASK_STATE_INPUT_REQUIRED");
  await until(await ask("open"), "TASK_STATE_INPUT_REQUIRED");
  const page = await signedIn();
  await noteStream(page);
  const held = await hold(page, /openQuestions/);
  await page.goto(`${base}/inbox`);
  await held.isRead;
  await isLive(page);
  await api("POST", `${name}:cancel`, {});
  await receives(page, "answered", "TASK_STATE_CANCELLED");
  held.release();
  await page.getByText("Is it open?").waitFor();
  assert.equal(await page.getByText("Is it answered?").count(), 0);
  await page.context().close();
});

nothingFailed();
