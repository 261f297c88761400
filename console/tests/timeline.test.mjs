// What a task has spent its time on, and its calls of tools, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, base, fits, nothingFailed, scripted, setUp, signedIn, until } from "./harness.mjs";

setUp();

/** Writes entries of the log into the pipe of an attempt. */
const report = (...entries) =>
  `printf '%s\\n' ${entries.map((one) => `'${JSON.stringify(one)}'`).join(" ")} >"$ROTA_EVENTS"`;
const call = (callId, tool, input, parentCallId) => ({
  toolCall: { callId, tool, inputJson: JSON.stringify(input), parentCallId },
});
const answer = (callId, output, isError = false) => ({ toolResult: { callId, output, isError } });
const open = (page, name) => page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);

test("attempts, waits and tools of a task are shown, those of subagents nested", async () => {
  const page = await signedIn({ colorScheme: "light", timezoneId: "Asia/Kolkata" });
  const events = report(
    call("t", "Task", { description: "look around" }),
    call("c", "Bash", { command: "ls /nowhere" }, "t"),
    answer("c", "no such folder", true),
    answer("t", "nothing there"),
  );
  const spec = {
    title: "two attempts",
    target: { agent: "shell" },
    retry: { maxAttempts: 2, initialBackoff: "0.001s", maxBackoff: "0.001s" },
    runtime: { command: { shell: `${events}; test $ROTA_ATTEMPT = 2` } },
  };
  const { name } = await api("POST", "namespaces/default/tasks", { spec });
  await until(name, "TASK_STATE_SUCCEEDED");
  await open(page, name);
  const timeline = page.getByRole("region", { name: "Timeline" });
  const rows = timeline.getByRole("row");
  await rows.filter({ hasText: "succeeded" }).waitFor();
  assert.equal(await rows.filter({ hasText: "Runs on" }).count(), 2);
  assert.equal(await rows.filter({ hasText: "Task: look around" }).count(), 2);
  const failed = rows.filter({ hasText: "Subagent: Bash: ls /nowhere: failed: no such folder" });
  assert.equal(await failed.count(), 2);
  const bar = rows.filter({ hasText: "Runs on" }).last().locator(".track .span");
  assert.ok((await bar.boundingBox()).width >= 2);
  // Times have the zone of the browser.
  assert.match(await rows.last().locator("time").getAttribute("title"), /\d\d:\d\d:\d\d.+GMT\+5:30/);
  await page.getByText("Times are of Asia/").waitFor();
  const created = page.locator(".pairs > div", { hasText: "Created" }).locator("time").first();
  assert.match(await created.textContent(), /\d\d:\d\d:\d\d.+GMT\+5:30/);
  await accessible(page, "a timeline, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "a timeline, dark");

  // By keyboard: what has failed, then one attempt of it.
  await page.getByRole("button", { name: "Failed only" }).focus();
  await page.keyboard.press("Enter");
  await rows.filter({ hasText: "succeeded" }).waitFor({ state: "detached" });
  assert.equal(await rows.filter({ hasText: "Runs on" }).count(), 1);
  await page.getByRole("combobox", { name: "Attempt" }).selectOption("2");
  await rows.filter({ hasText: "Runs on" }).waitFor({ state: "detached" });
  assert.equal(await failed.count(), 1);

  // The log has them, too.
  const log = page.getByRole("region", { name: "Log", exact: true });
  await log.evaluate((log) => log.scrollTo(0, 0));
  await log.locator(".line.tool", { hasText: "Task" }).first().waitFor();
  assert.equal(await log.locator(".line.tool .nested", { hasText: "ls /nowhere" }).count(), 2);
  assert.equal(await log.locator(".line.tool .nested", { hasText: "look around" }).count(), 0);
  await page.setViewportSize({ width: 360, height: 640 });
  await fits(page, "a timeline");
  await page.context().close();
});

test("a wait for a person lasts until the answer", async () => {
  const page = await signedIn();
  const steps = [{ ask: "which one?" }, { succeed: "chosen" }];
  const name = await scripted("a question", steps);
  await open(page, name);
  const row = page
    .getByRole("region", { name: "Timeline" })
    .getByRole("row")
    .filter({ hasText: "Asks: which one?" });
  await row.getByText("so far").first().waitFor();
  const { status } = await api("GET", name);
  const [{ requestId }] = status.pendingInput;
  await api("POST", `${name}:sendInput`, { input: { requestId, text: "the first" } });
  await until(name, "TASK_STATE_SUCCEEDED");
  await row.getByText("so far").first().waitFor({ state: "detached" });
  await page.context().close();
});

nothingFailed();
