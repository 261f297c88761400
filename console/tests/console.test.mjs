// The control centre in a real browser, against a real `rota dev` with its workers:
//
//   ROTA_BIN=…/rota CHROMIUM=/usr/bin/chromium node --test tests/
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  accessible,
  adminToken,
  api,
  base,
  browser,
  fits,
  folder,
  kill,
  newPage,
  nothingFailed,
  run,
  scripted,
  setUp,
  shell,
  show,
  signedIn,
  start,
  titled,
} from "./harness.mjs";

setUp();

test("the token is asked for, checked and forgotten", async () => {
  const page = await newPage(await browser.newContext());
  await page.goto(`${base}/tasks`);
  await page.getByLabel("Token").fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "token" }).waitFor();
  await accessible(page, "sign-in");
  await page.getByLabel("Token").fill(adminToken());
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  assert.equal(new URL(page.url()).hash, "");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").waitFor();
  assert.equal(await page.evaluate("sessionStorage.length"), 0);
  await page.context().close();
});

test("tasks appear, run and are cancelled", async () => {
  const page = await signedIn();
  assert.ok(!page.url().includes("token"));
  await shell("echo ready; sleep 1000", "--title", "a long one");
  await show(page, "a long one");
  // By keyboard: the first row, its page, its log.
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "a long one" }).waitFor();
  await page.getByRole("region", { name: "Log" }).getByText("ready", { exact: true }).waitFor();
  await accessible(page, "task");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.locator(".state.cancelled").first().waitFor();
  await page.keyboard.press("t");
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  // The filter is in the address.
  await page.getByLabel("State").selectOption("CANCELLED");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/state=CANCELLED/);
  await page.reload();
  await page.getByRole("link", { name: "a long one" }).waitFor();
  await page.getByLabel("State").selectOption("FAILED");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.getByText("No task matches").waitFor();
  await accessible(page, "tasks");
  await page.context().close();
});

test("several tasks are cancelled with their number", async () => {
  const page = await signedIn();
  for (const name of ["first", "second"]) {
    await shell("sleep 1000", "--title", name);
  }
  await show(page, "first");
  await show(page, "second");
  await page.getByLabel("Select first").check();
  await page.getByLabel("Select second").check();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByText("Cancel 2 tasks?").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.locator("tr", { hasText: "second" }).locator(".state.cancelled").waitFor();
  await page.locator("tr", { hasText: "first" }).locator(".state.cancelled").waitFor();
  await page.context().close();
});

test("questions are answered in the inbox, once", async () => {
  const script = [{ ask: "Which colour?" }, { succeed: "painted" }];
  const task = join(folder, "ask.yaml");
  writeFileSync(
    task,
    `apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: ask}
spec:
  title: a question
  agent: script
  runtime: {scripted: {steps: ${JSON.stringify(script)}}}
`,
  );
  const [page, other] = [await signedIn({ viewport: { width: 360, height: 640 } }), await signedIn()];
  for (const one of [page, other]) {
    await one.getByRole("link", { name: /Inbox/ }).click();
    await one.getByText("Nothing waits for a person.").waitFor();
  }
  await accessible(page, "empty inbox");
  await run(["apply", "-f", task]);
  for (const one of [page, other]) {
    await one.getByText("Which colour?").waitFor();
    await titled(one, "(1) Rota");
  }
  await fits(page, "inbox");
  await accessible(page, "inbox");
  await page.getByLabel("Answer", { exact: true }).last().fill("blue");
  await page.getByRole("button", { name: "Answer" }).click();
  await page.getByText("Nothing waits for a person.").waitFor();
  await other.getByText("Nothing waits for a person.").waitFor();
  await page.context().close();
  await other.context().close();
});

test("a killed control plane is survived without a reload", async () => {
  const page = await signedIn();
  await shell('while :; do echo "attempt $ROTA_ATTEMPT"; sleep 0.2; done', "--title", "counting");
  await show(page, "counting");
  await page.getByRole("link", { name: "counting" }).click();
  const log = page.getByRole("region", { name: "Log" });
  await log.getByText("attempt 1", { exact: true }).last().waitFor();
  await page.evaluate("window.kept = true");
  await kill();
  await page.getByText("Connection lost").waitFor();
  await start();
  // Workers of `rota dev` end with it: the next attempt prints again.
  await page.getByText("Connection lost").waitFor({ state: "detached" });
  await log
    .getByText(/^attempt [2-9]$/)
    .last()
    .waitFor();
  assert.equal(await page.evaluate("window.kept"), true);
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.locator(".state.cancelled").first().waitFor();
  await page.context().close();
});

test("hostile titles and output are only shown", async () => {
  const page = await signedIn();
  const hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>";
  await shell(`printf '\\033[31m${hostile}\\033[0m\\n'`, "--title", hostile);
  await show(page, hostile);
  await page.getByRole("link", { name: hostile }).click();
  await page.getByRole("region", { name: "Log" }).getByText(hostile).waitFor();
  assert.equal(await page.locator("main img, main script").count(), 0);
  await page.context().close();
});

test("agents, workers and workflows are shown in both themes and on a phone", async () => {
  const workflow = join(folder, "workflow.yaml");
  writeFileSync(
    workflow,
    `title: a release
steps:
  - name: build
    task: {target: {agent: shell}, runtime: {command: {shell: echo built}}}
  - name: approve
    needs: [{step: build}]
    approval: {prompt: Release it?}
`,
  );
  await run(["workflow", "run", "-f", workflow]);
  for (const colorScheme of ["light", "dark"]) {
    const page = await signedIn({ colorScheme, viewport: { width: 360, height: 640 } });
    await page.getByRole("link", { name: "Agents" }).click();
    await page.getByRole("cell", { name: "shell", exact: true }).first().waitFor();
    await accessible(page, `agents, ${colorScheme}`);
    await fits(page, "agents");
    await page.getByRole("link", { name: "Workflows" }).click();
    await page.getByRole("link", { name: "a release" }).click();
    await page
      .getByRole("cell", { name: /approve/ })
      .first()
      .waitFor();
    await accessible(page, `workflow, ${colorScheme}`);
    await fits(page, "workflow");
    if (colorScheme === "dark") {
      await page.getByRole("button", { name: "Approve approve" }).click();
      await page.locator(".bar .state.succeeded").waitFor();
    }
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
    await page.context().close();
  }
});

test("a failed compensation is resolved in the page of its workflow", async () => {
  const fixed = join(folder, "fixed");
  const command = (text) => ({
    target: { agent: "shell" },
    retry: { maxAttempts: 1 },
    runtime: { command: { shell: text } },
  });
  const steps = [
    { name: "first", task: command("true"), compensate: command("false") },
    {
      name: "second",
      needs: [{ step: "first" }],
      task: command("true"),
      compensate: command(`test -e ${fixed}`),
    },
    { name: "third", needs: [{ step: "second" }], task: command("false") },
  ];
  const spec = { title: "half undone", onFailure: "ON_STEP_FAILURE_COMPENSATE", steps };
  await api("POST", "namespaces/default/workflows", { spec });
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  await page.getByRole("link", { name: "Workflows" }).click();
  await page.getByRole("link", { name: "half undone" }).click();
  const form = (step) => page.getByRole("region", { name: `Failed compensation of ${step}` });
  await form("second").waitFor();
  await accessible(page, "failed compensation");
  await fits(page, "failed compensation");
  writeFileSync(fixed, "");
  await form("second").getByLabel("Reason").fill("the disk was full");
  await form("second").getByRole("button", { name: "Compensate second again" }).click();
  await page.getByText("Compensation: succeeded; resolved as retry by an admin: the disk was full").waitFor();
  await form("first").getByRole("button", { name: "Leave the effects" }).click();
  await page.getByText("Compensation: skipped; resolved as skip by an admin").waitFor();
  await page.locator(".bar .state.failed").waitFor();
  await page.context().close();
});

/** Bytes of a picture that is kept with the documentation. */
const LARGEST_PICTURE = 100_000;

test("pictures for the documentation", { skip: !process.env.ROTA_PICTURES }, async () => {
  const page = await signedIn({ viewport: { width: 1100, height: 560 }, colorScheme: "light" });
  const check = (title, line) =>
    run(["run", "--detach", "--agent", "checks", "--title", title, "--command", "--", "sh", "-c", line]);
  const checks =
    "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {name: checks}\nspec: {runtime: {command: {}}, maxReplicas: 3}\n";
  writeFileSync(join(folder, "checks.yaml"), checks);
  await run(["apply", "-f", join(folder, "checks.yaml")]);
  await check("Find dead code", "echo looking; sleep 1000");
  const runtime = { command: { shell: "echo 3 are new; exit 3" } };
  const failing = { title: "Update the dependencies", target: { agent: "checks" }, runtime };
  await api("POST", "namespaces/default/tasks", { spec: { ...failing, retry: { maxAttempts: 1 } } });
  await check("Check the links", "for i in 1 2 3 4 5; do echo checked page $i; done; echo all links work");
  await page.goto(`${base}/tasks?agent=checks`);
  await page.locator("tr", { hasText: "Check the links" }).locator(".state.succeeded").waitFor();
  await page.locator("tr", { hasText: "Update the dependencies" }).locator(".state.failed").waitFor();
  await page.locator("tr", { hasText: "Find dead code" }).locator(".state.running").waitFor();
  const picture = async (name, of = page) => {
    const path = join(process.env.ROTA_PICTURES, `console-${name}.png`);
    const { length } = await of.screenshot({ path });
    assert.ok(length <= LARGEST_PICTURE, `${path} has ${length} bytes, more than ${LARGEST_PICTURE}`);
  };
  await picture("tasks");
  await page.getByRole("link", { name: "Check the links" }).click();
  await page.getByRole("region", { name: "Log", exact: true }).getByText("all links work").waitFor();
  await picture("task");
  const ofTask = page.url();
  const asks = { prompt: "The tests pass. Publish version 1.4 now?" };
  const task = (line) => ({ target: { agent: "checks" }, runtime: { command: { shell: line } } });
  const steps = [
    { name: "build", task: task("echo built") },
    { name: "unit-tests", needs: [{ step: "build" }], task: task("echo passed") },
    { name: "browser-tests", needs: [{ step: "build" }], task: task("echo passed") },
    { name: "sign-off", needs: [{ step: "unit-tests" }, { step: "browser-tests" }], approval: asks },
    { name: "publish", needs: [{ step: "sign-off" }], task: task("echo published") },
  ];
  const workflow = await api("POST", "namespaces/default/workflows", {
    spec: { title: "Release 1.4", steps },
  });
  await scripted("Tidy the changelog", [{ remember: "x" }, { ask: "Merge the two entries about logs?" }]);
  await page.keyboard.press("i");
  await page.getByText(asks.prompt).waitFor();
  await page.getByText("Merge the two entries").waitFor();
  await picture("inbox");
  await page.goto(`${base}/workflows/default/${workflow.name.split("/").at(-1)}`);
  await page.getByRole("img", { name: "Graph of 5 steps" }).waitFor();
  await page.getByText(asks.prompt).waitFor();
  await picture("workflow");
  await page.keyboard.press("m");
  await page.locator("canvas").last().waitFor();
  await picture("metrics");
  await page.context().close();

  // The same on a phone, and in the first window with a zoom of 200 %.
  const phone = await signedIn({ viewport: { width: 360, height: 640 }, colorScheme: "light" });
  await phone.getByRole("link", { name: "Inbox" }).click();
  await phone.getByText(asks.prompt).waitFor();
  await phone.getByText("Merge the two entries").waitFor();
  await fits(phone, "the picture of a phone");
  await picture("phone", phone);
  await phone.context().close();
  const half = { viewport: { width: 550, height: 280 }, deviceScaleFactor: 2 };
  const zoomed = await signedIn({ ...half, colorScheme: "dark" });
  await zoomed.goto(ofTask);
  await zoomed.getByRole("region", { name: "Log", exact: true }).getByText("all links work").waitFor();
  await fits(zoomed, "the picture of a zoom");
  await picture("zoom", zoomed);
  await zoomed.context().close();
});

nothingFailed();
