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
  eventually,
  fits,
  folder,
  hasWaiting,
  kill,
  newPage,
  nothingFailed,
  run,
  scripted,
  settled,
  setUp,
  shell,
  show,
  signedIn,
  signOut,
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
  await titled(page, "Sign in · Rota");
  await page.getByLabel("Token").fill(adminToken());
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  assert.equal(new URL(page.url()).hash, "");
  await signOut(page);
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
  await settled(page);
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
    await hasWaiting(one, 1);
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

/** Number of lines of a log that a page has, or of those that it has found. */
async function linesOf(page) {
  const status = page.getByRole("status").filter({ hasText: /[0-9]+ lines/ });
  return Number(/([0-9]+) lines/.exec(await status.textContent())[1]);
}

/** The first visible line of a log, and where it is, once the position rests. */
async function placeOf(log) {
  const read = () =>
    log.evaluate(async (box) => {
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      const top = box.getBoundingClientRect().top;
      const line = [...box.querySelectorAll(".line")]
        .map((line) => [line.textContent, Math.round(line.getBoundingClientRect().top - top)])
        .filter(([, at]) => at >= 0)
        .sort(([, one], [, other]) => one - other)[0];
      return JSON.stringify(line);
    });
  let place = await read();
  await eventually(async () => {
    const before = place;
    place = await read();
    return place === before;
  }, "the log does not rest");
  return place;
}

/** Numbers of the lines that one attempt has printed, as the control plane has them. */
async function printed(name, attempt) {
  const headers = { Authorization: `Bearer ${adminToken()}` };
  const text = await (await fetch(`${base}/api/v1/${name}:downloadLog`, { headers })).text();
  return [...text.matchAll(new RegExp(`attempt ${attempt}, line ([0-9]+)`, "g"))].map((one) =>
    Number(one[1]),
  );
}

test("a killed control plane is survived without a reload, a loss or a jump", async () => {
  const print = 'i=$((i+1)); echo "attempt $ROTA_ATTEMPT, line $i"; test $i -lt 300 || sleep 0.2';
  const runtime = { command: { shell: `i=0; while :; do ${print}; done` } };
  const spec = { title: "counting", target: { agent: "shell" }, runtime };
  const { name } = await api("POST", "namespaces/default/tasks", { spec });
  const page = await signedIn();
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const log = page.getByRole("region", { name: "Log" });
  await log
    .getByText(/attempt 1, line [3-9][0-9]{2}$/)
    .last()
    .waitFor();
  // The reader looks at earlier lines, and in another window at the middle of a list, with something typed and selected.
  await page.getByRole("button", { name: "Following" }).click();
  await log.evaluate((box) => {
    box.scrollTop = 1000;
  });
  const place = await placeOf(log);
  assert.match(place, /attempt 1, line/);
  const waiting = [];
  for (let number = 0; number < 40; number += 1) {
    const target = { agent: "missing" };
    waiting.push(await scripted(`kept ${number}`, [], { owner: "kept", target }));
  }
  const list = await signedIn();
  await list.goto(`${base}/tasks?owner=kept`);
  const row = list.locator("tr", { hasText: "kept 20" });
  await list.getByLabel("Select kept 5", { exact: true }).check();
  await list.getByLabel("Name", { exact: true }).fill("half typed");
  await list.evaluate("scrollTo(0, 500)");
  const { y } = await row.boundingBox();
  for (const one of [page, list]) {
    await one.evaluate("window.kept = true");
  }
  const before = await linesOf(page);
  await kill();
  for (const one of [page, list]) {
    await one.getByText("Connection lost").waitFor();
  }
  await start();
  for (const one of [page, list]) {
    await one.getByText("Connection lost").waitFor({ state: "detached" });
  }
  // Workers of `rota dev` end with it: the next attempt prints again.
  await eventually(async () => (await linesOf(page)) > before + 50, "nothing is printed");
  assert.equal(await placeOf(log), place, "the log has moved");
  await page.getByRole("button", { name: "Paused: follow" }).click();
  const later = log.getByText(/attempt [2-9], line [3-9][0-9]{2}$/).last();
  const [, attempt] = /attempt ([0-9]+)/.exec(await later.textContent());
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.locator(".state.cancelled").first().waitFor();
  await log
    .locator(".line.note")
    .filter({ hasText: /cancelled/ })
    .last()
    .waitFor();
  // Each line once, of both attempts.
  for (const number of [1, attempt]) {
    const lines = await printed(name, number);
    assert.ok(lines.length >= 300, `${lines.length} lines of attempt ${number}`);
    assert.deepEqual(
      lines,
      lines.map((_, index) => index + 1),
    );
    await page.getByLabel("Find in the log").fill(`attempt ${number}, line`);
    await eventually(
      async () => (await linesOf(page)) === lines.length,
      `the page has not the ${lines.length} lines of attempt ${number}`,
    );
  }

  const { y: after } = await row.boundingBox();
  assert.ok(Math.abs(after - y) <= 1, `the list has moved by ${after - y} px`);
  assert.ok(await list.getByLabel("Select kept 5", { exact: true }).isChecked());
  assert.equal(await list.getByLabel("Name", { exact: true }).inputValue(), "half typed");
  assert.equal(await list.getByRole("link", { name: /^kept / }).count(), waiting.length);
  // It is live again.
  for (const one of waiting) {
    await api("POST", `${one}:cancel`, {});
  }
  await row.locator(".state.cancelled").waitFor();
  for (const one of [page, list]) {
    assert.equal(await one.evaluate("window.kept"), true);
    await one.context().close();
  }
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
    // Moves what is below it when it is drawn.
    await page.getByRole("img", { name: /Graph of/ }).waitFor();
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
  await page.getByRole("img", { name: "Graph of 3 steps" }).waitFor();
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
