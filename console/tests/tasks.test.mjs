// Tasks and workflows, in a real browser.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  accessible,
  api,
  base,
  editorOf,
  eventually,
  fits,
  folder,
  hasWaiting,
  hold,
  nothingFailed,
  scripted,
  setUp,
  shell,
  show,
  signedIn,
  textOf,
  until,
} from "./harness.mjs";

setUp();

const confirm = async (page, name) => {
  await page.getByRole("button", { name, exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name, exact: true }).click();
};

test("a retry leads to the new task", async () => {
  const page = await signedIn();
  const name = await scripted("to be repeated", [{ succeed: "done" }]);
  await until(name, "TASK_STATE_SUCCEEDED");
  const id = name.split("/").at(-1);
  await page.goto(`${base}/tasks/default/${id}`);
  await confirm(page, "Retry");
  await page.waitForURL((url) => /\/tasks\/default\/.+/.test(url.pathname) && !url.pathname.endsWith(id));
  await page.getByRole("heading", { name: "to be repeated" }).waitFor();
  await page.context().close();
});

test("a failed task is changed and run again", async () => {
  const page = await signedIn();
  const retry = { maxAttempts: 1 };
  const name = await scripted("to be changed", [{ fail: { message: "no luck" } }], { retry });
  await until(name, "TASK_STATE_FAILED");
  const id = name.split("/").at(-1);
  await page.goto(`${base}/tasks/default/${id}`);
  await page.getByRole("button", { name: "Edit and retry" }).click();
  const source = editorOf(page);
  const given = await textOf(source);
  assert.match(given, /no luck/);
  await page.getByText("The server accepts it.").waitFor();
  await accessible(page, "edit and retry");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "edit and retry, dark");
  await fits(page, "edit and retry");
  const run = page.getByRole("button", { name: "Run the changed task" });
  await source.fill("steps: [");
  await page.getByRole("alert").waitFor();
  assert.ok(await run.isDisabled());
  // What the server refuses is named with the line of the field, while it is typed.
  await source.fill(`${given.trimEnd()}\nkind: Not a kind\n`);
  await page.getByRole("alert").filter({ hasText: "task.spec.kind" }).waitFor();
  assert.ok(await run.isDisabled());
  await page.getByRole("button", { name: /^Line [0-9]+$/ }).click();
  assert.equal(await page.evaluate(() => getSelection().toString().trim()), "kind: Not a kind");
  await source.fill(given.replace(/fail:\s+message: no luck/, "succeed: done at last"));
  await page.getByText("The server accepts it.").waitFor();
  // What was typed survives when the page is left.
  await page.goto(base);
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  await page.goto(`${base}/tasks/default/${id}`);
  await page.getByText("The server accepts it.").waitFor();
  assert.match(await textOf(source), /done at last/);
  await run.click();
  await page.waitForURL((url) => /\/tasks\/default\/.+/.test(url.pathname) && !url.pathname.endsWith(id));
  await page.getByRole("region", { name: "Result" }).getByText("done at last").waitFor();
  const [before, made] = [await api("GET", name), page.url().split("/").at(-1)];
  assert.equal(before.labels["rota.dev/replayed"], made);
  assert.equal((await api("GET", `namespaces/default/tasks/${made}`)).labels["rota.dev/replay-of"], id);
  // What has run is no draft any more, and neither is what was discarded.
  await page.goto(`${base}/tasks/default/${id}`);
  const edit = page.getByRole("button", { name: "Edit and retry" });
  await edit.click();
  await source.fill(given.replace("no luck", "another"));
  // Secrets are not kept, which is reported.
  await source.fill(`${given.trimEnd()}\nsecrets: {API_KEY: hush}\n`);
  await page.getByRole("alert").filter({ hasText: "A text with secrets is not kept" }).waitFor();
  assert.ok(!(await page.evaluate("JSON.stringify(sessionStorage)")).includes("hush"));
  await page.getByRole("button", { name: "Discard" }).click();
  await edit.waitFor();
  await page.reload();
  await edit.waitFor();
  await page.context().close();
});

test("a retry whose question is open sees that another person has settled the task", async () => {
  const steps = [{ fail: { message: "no luck" } }];
  const name = await scripted("settled under a question", steps, { retry: { maxAttempts: 1 } });
  await until(name, "TASK_STATE_FAILED");
  const copy = await scripted("run by another person", [{ succeed: "done" }]);
  const id = copy.split("/").at(-1);
  const page = await signedIn();
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const button = (within) => within.getByRole("button", { name: "Retry", exact: true });
  const dialog = page.getByRole("dialog", { name: "Retry" });
  await button(page).click();
  await dialog.getByText("Create this task again?", { exact: true }).waitFor();
  await api("PATCH", `${name}?updateMask=labels`, { labels: { "rota.dev/replayed": id } });
  await button(dialog).click();
  const refusal = `the task was run again as ${id} meanwhile: no second task was created`;
  await page.getByRole("alert").filter({ hasText: refusal }).waitFor();
  await page.getByText("Run again as").getByRole("link", { name: id }).waitFor();
  // Who has seen that may run it once more.
  await button(page).click();
  const asked = dialog.getByText(`It was already run again as ${id}. Create this task again?`);
  await asked.waitFor();
  // The question stays as it was asked, also where the page is read again.
  await api("PATCH", `${name}?updateMask=labels`, { labels: { "rota.dev/replayed": "never" } });
  const isDismissed = async () => {
    // A reading that is under way may be older, and takes the place of another one.
    await page.evaluate(() => dispatchEvent(new Event("visibilitychange")));
    return page.getByText("Dismissed.", { exact: true }).isVisible();
  };
  await eventually(isDismissed, "the label is not read again");
  assert.ok(await asked.isVisible());
  await button(dialog).click();
  await page.getByRole("alert").filter({ hasText: "the task was dismissed meanwhile" }).waitFor();
  await button(page).click();
  await dialog.getByText("It was already dismissed. Create this task again?").waitFor();
  await button(dialog).click();
  await page.waitForURL(({ pathname }) => pathname !== `/tasks/default/${name.split("/").at(-1)}`);
  assert.equal((await api("GET", name)).labels["rota.dev/replayed"], "never");
  await page.context().close();
});

test("a label that names no task is no link", async () => {
  const steps = [{ fail: { message: "no luck" } }];
  const name = await scripted("labelled by hand", steps, { retry: { maxAttempts: 1 } });
  await until(name, "TASK_STATE_FAILED");
  const path = `../../default/tasks/${name.split("/").at(-1)}`;
  await api("PATCH", `${name}?updateMask=labels`, { labels: { "rota.dev/replayed": path } });
  const page = await signedIn();
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const fate = page.getByText(`Run again as ${path}.`, { exact: true });
  await fate.waitFor();
  assert.equal(await fate.getByRole("link").count(), 0);
  // Nor is such an address the page of a task.
  await page.goto(`${base}/tasks/default/${encodeURIComponent(path)}`);
  await page.getByRole("alert").filter({ hasText: "The address names no task." }).waitFor();
  await page.context().close();
});

test("a waiting task shows why, and another cause without a reload", async () => {
  const name = await scripted("impatient", [], { target: { agent: "later" } });
  const page = await signedIn();
  await page.clock.install();
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const why = page.getByRole("region", { name: "Why it does not run" });
  await why.getByText("agent later does not exist yet").first().waitFor();
  // With its agent the task is queued, which its log has. Others start its workers.
  const spec = { runtime: { scripted: {} }, management: "MANAGEMENT_EXTERNAL" };
  await api("POST", "namespaces/default/agents?agentId=later", { spec });
  await why.getByText("no worker for agent later is connected").first().waitFor();
  // What an operator reports is no entry of the log.
  await api("POST", "namespaces/default/agents/later:report", { message: "no such image" });
  await page.clock.fastForward(10_000);
  await why.getByText("cannot start: no such image").first().waitFor();
  const refusal = { status: 404, json: { code: 5, message: "nothing explains it" } };
  await page.route(/:explain$/, (route) => route.fulfill(refusal));
  await page.clock.fastForward(10_000);
  await page.getByRole("alert").filter({ hasText: "nothing explains it" }).waitFor();
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

test("a failed task shows class, message and hint", async () => {
  const spec = {
    title: "unreadable",
    target: { agent: "shell" },
    retry: { maxAttempts: 1 },
    runtime: { command: { shell: "echo no object > $ROTA_OUTPUT/result.json" } },
  };
  const { name } = await api("POST", "namespaces/default/tasks", { spec });
  await until(name, "TASK_STATE_FAILED");
  const page = await signedIn();
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const failure = page.getByRole("region", { name: "Failure" });
  await failure.getByText("agent: output/result.json cannot be used").waitFor();
  await failure.getByText("write a JSON object of at most 1 MiB").waitFor();
  await page.context().close();
});

test("another run of a workflow is shown", async () => {
  const page = await signedIn();
  const runtime = { command: { shell: "true" } };
  const steps = [{ name: "only", task: { target: { agent: "shell" }, runtime } }];
  const { name } = await api("POST", "namespaces/default/workflows", { spec: { title: "twice", steps } });
  const id = name.split("/").at(-1);
  await page.goto(`${base}/workflows/default/${id}`);
  await page.locator(".bar .state.succeeded").waitFor();
  await confirm(page, "Run again");
  await page.waitForURL((url) => /\/workflows\/default\/.+/.test(url.pathname) && !url.pathname.endsWith(id));
  await page.locator(".bar .state.succeeded").waitFor();
  await page.context().close();
});

test("a workflow is paused and resumed, cancelled, and ended without its finally-steps", async () => {
  const page = await signedIn();
  const task = (line) => ({ target: { agent: "shell" }, runtime: { command: { shell: line } } });
  const { name } = await api("POST", "namespaces/default/workflows", {
    spec: {
      title: "held",
      steps: [
        { name: "look", approval: { prompt: "Go on?" } },
        { name: "work", needs: [{ step: "look" }], task: task("true") },
        { name: "wait", needs: [{ step: "work" }], approval: { prompt: "And now?" } },
      ],
      finally: [{ name: "clean", task: task("sleep 1000") }],
    },
  });
  await page.goto(`${base}/workflows/default/${name.split("/").at(-1)}`);
  const state = (step) => page.getByRole("region", { name: "Steps" }).locator("tr", { hasText: step });
  const status = async () => (await api("GET", name)).status;
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator(".bar .state.paused").waitFor();
  assert.equal((await status()).paused, true);
  // What was approved meanwhile starts nothing.
  await page.getByRole("button", { name: "Approve look" }).click();
  await state("look").locator(".state.succeeded").waitFor();
  assert.equal((await status()).state, "WORKFLOW_STATE_PAUSED");
  await page.getByRole("button", { name: "Resume" }).focus();
  await page.keyboard.press("Enter");
  await state("work").locator(".state.succeeded").waitFor();
  assert.ok(!(await status()).paused);
  await confirm(page, "Cancel");
  await state("clean").locator(".state.running").waitFor();
  const ofFinally = async () =>
    (await api("GET", `namespaces/default/tasks?filter.workflow=${name.split("/").at(-1)}`)).tasks.find(
      (task) => task.step.step === "clean",
    );
  assert.ok((await status()).cancelled);
  await page.getByRole("button", { name: "Cancel finally-steps" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByRole("button", { name: "Cancel finally-steps" }).focus();
  await page.keyboard.press("Enter");
  await page.locator(".bar .state.cancelled").waitFor();
  assert.equal((await status()).state, "WORKFLOW_STATE_CANCELLED");
  assert.equal((await ofFinally()).status.state, "TASK_STATE_CANCELLED");
  await page.context().close();
});

test("who is asked about a workflow that another person cancels does not end its finally-steps", async () => {
  const page = await signedIn();
  const task = { target: { agent: "shell" }, runtime: { command: { shell: "sleep 1000" } } };
  const spec = { title: "cancelled", steps: [{ name: "work", task }], finally: [{ name: "clean", task }] };
  const { name } = await api("POST", "namespaces/default/workflows", { spec });
  await page.goto(`${base}/workflows/default/${name.split("/").at(-1)}`);
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("Its finally-steps run nevertheless.").waitFor();
  await api("POST", `${name}:cancel`, {});
  await page.getByRole("button", { name: "Cancel finally-steps" }).first().waitFor();
  await dialog.waitFor({ state: "detached" });
  await api("POST", `${name}:cancel`, { alsoFinally: true });
  await page.locator(".bar .state.cancelled").waitFor();
  await page.context().close();
});

test("what has failed of a workflow runs again, with the results of the rest", async () => {
  const page = await signedIn();
  const repaired = join(folder, "repaired");
  const task = (line) => ({
    target: { agent: "shell" },
    retry: { maxAttempts: 1 },
    runtime: { command: { shell: line } },
  });
  const steps = [
    { name: "first", task: task("echo one") },
    { name: "second", needs: [{ step: "first" }], task: task(`test -e ${repaired}`) },
  ];
  const { name } = await api("POST", "namespaces/default/workflows", { spec: { title: "half done", steps } });
  await page.goto(`${base}/workflows/default/${name.split("/").at(-1)}`);
  await page.locator(".bar .state.failed").waitFor();
  writeFileSync(repaired, "");
  await confirm(page, "Run what has failed again");
  await page.waitForURL((url) => !url.pathname.endsWith(name.split("/").at(-1)));
  const next = `namespaces/default/workflows/${page.url().split("/").at(-1)}`;
  await until(next, "WORKFLOW_STATE_SUCCEEDED");
  await page.locator(".bar .state.succeeded").waitFor();
  const { tasks } = await api("GET", `namespaces/default/tasks?filter.workflow=${next.split("/").at(-1)}`);
  assert.deepEqual(
    tasks.map((task) => task.step.step),
    ["second"],
  );
  await page.context().close();
});

test("a lost answer does not start a second run", async () => {
  const page = await signedIn();
  const name = await scripted("paid for", [{ succeed: "done" }]);
  await until(name, "TASK_STATE_SUCCEEDED");
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const keys = [];
  await page.route(/:retry$/, async (route) => {
    keys.push(route.request().postDataJSON().idempotencyKey);
    if (keys.length === 1) {
      // The call is made, and its answer is lost.
      await route.fetch();
      await route.abort();
    } else {
      await route.continue();
    }
  });
  await confirm(page, "Retry");
  await page.getByRole("alert").waitFor();
  await confirm(page, "Retry");
  await page.waitForURL((url) => !url.pathname.endsWith(name.split("/").at(-1)));
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  const { tasks } = await api("GET", "namespaces/default/tasks?pageSize=100");
  assert.equal(tasks.filter((task) => task.spec.title === "paid for").length, 2);
  await page.context().close();
});

test("the prompt stays", async () => {
  const page = await signedIn();
  const name = await scripted("prompted", [{ hang: true }], { prompt: "Find the needle" });
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  await page.locator(".state.running").first().waitFor();
  await page.getByText(/[1-9][0-9]* lines/).waitFor();
  await page.getByText("Find the needle").waitFor();
  await confirm(page, "Cancel");
  await page.locator(".state.cancelled").first().waitFor();
  await page.getByText("Find the needle").waitFor();
  await page.context().close();
});

test("a message reaches a running task by keyboard", async () => {
  const page = await signedIn();
  const name = await scripted("steered", [{ hang: true }]);
  await until(name, "TASK_STATE_RUNNING");
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const field = page.getByLabel("Message to the agent");
  await field.focus();
  await page.keyboard.type("Be brief <b>");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByText("Sent.").waitFor();
  assert.equal(await field.inputValue(), "");
  await page.getByRole("region", { name: "Log" }).getByText("answer: Be brief <b>").waitFor();
  const { hits } = await api("GET", `${name}:searchLog?text=brief`);
  assert.deepEqual(
    hits.map((hit) => hit.line),
    ["Be brief <b>"],
  );
  await confirm(page, "Cancel");
  await until(name, "TASK_STATE_CANCELLED");
  // One that has ended takes none.
  await field.waitFor({ state: "detached" });
  await page.context().close();
});

test("a message is sent once, and what is typed stays when the task ends", async () => {
  const page = await signedIn();
  const name = await scripted("interrupted", [{ hang: true }]);
  await until(name, "TASK_STATE_RUNNING");
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const [field, send] = [page.getByLabel("Message to the agent"), page.getByRole("button", { name: "Send" })];
  const calls = await hold(page, /:sendInput$/);
  await field.fill("Be brief");
  await send.click();
  await calls.held;
  assert.ok(await send.isDisabled());
  calls.release();
  await page.getByText("Sent.").waitFor();
  await field.fill("And be polite");
  await api("POST", `${name}:cancel`, {});
  await page.getByText("The task is not running.").waitFor();
  assert.equal(await field.inputValue(), "And be polite");
  // Nor does the field go away under the keys, which would open pages.
  await field.fill("");
  await page.keyboard.type("a");
  assert.equal(await field.inputValue(), "a");
  assert.ok(await send.isDisabled());
  await page.context().close();
});

test("an endless line is broken and its colours are bounded", async () => {
  const page = await signedIn();
  const colours = "yes \"$(printf '\\033[31mx\\033[32my')\" | tr -d '\\n' | head -c 400000";
  await shell(`${colours}; echo; echo the end`, "--title", "one line");
  await show(page, "one line");
  await page.getByRole("link", { name: "one line" }).click();
  const log = page.getByRole("region", { name: "Log" });
  await log.getByText("the end", { exact: true }).waitFor();
  await log.evaluate((box) => {
    box.scrollTop = 0;
  });
  await log.locator(".line.stdout span span").first().waitFor();
  const [longest, most] = await log.evaluate((box) => {
    const lines = [...box.querySelectorAll(".line")];
    return [
      Math.max(...lines.map((line) => line.textContent.length)),
      Math.max(...lines.map((line) => line.querySelectorAll("span").length)),
    ];
  });
  assert.ok(longest <= 8300, `a line of ${longest} characters`);
  assert.ok(most <= 203, `a line of ${most} parts`);
  await page.context().close();
});

test("tasks whose action has failed stay selected, with the reason", async () => {
  const page = await signedIn();
  const names = [];
  for (const title of ["mutable", "immutable"]) {
    names.push(await scripted(title, [{ hang: true }]));
    await show(page, title);
    await page.getByLabel(`Select ${title}`, { exact: true }).check();
  }
  await page.route(`**/${names[1]}:cancel`, (route) => route.abort());
  await confirm(page, "Cancel");
  await page
    .getByRole("alert")
    .filter({ hasText: "1 of 2 failed: the control plane cannot be reached" })
    .waitFor();
  assert.ok(await page.getByLabel("Select immutable").isChecked());
  assert.ok(!(await page.getByLabel("Select mutable", { exact: true }).isChecked()));
  await page.unrouteAll();
  await confirm(page, "Cancel");
  await until(names[1], "TASK_STATE_CANCELLED");
  await page.context().close();
});

test("a workflow is drawn, and its approval waits in the inbox", async () => {
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  const task = (shell) => ({ target: { agent: "shell" }, runtime: { command: { shell } } });
  const { name } = await api("POST", "namespaces/default/workflows", {
    spec: {
      title: "a delivery",
      steps: [
        { name: "build", task: task("echo built") },
        { name: "look", needs: [{ step: "build" }], approval: { prompt: "Is \u202eit good?" } },
        { name: "deliver", needs: [{ step: "look" }], task: task("echo ${{ steps.look.result.comment }}") },
      ],
    },
  });
  await page.getByRole("link", { name: /Inbox/ }).click();
  const card = page.getByRole("article", { name: "a delivery" });
  await card.getByText("Is [U+202E]it good?").waitFor();
  await hasWaiting(page, 1);
  await accessible(page, "inbox with an approval");
  await fits(page, "inbox with an approval");
  await card.getByRole("link", { name: "a delivery" }).click();
  const graph = page.getByRole("img", { name: "Graph of 3 steps" });
  await graph.locator("g.running", { hasText: "look" }).waitFor();
  const left = async (step) => (await graph.locator("g", { hasText: step }).boundingBox()).x;
  assert.ok((await left("build")) < (await left("look")) && (await left("look")) < (await left("deliver")));
  assert.equal(await graph.locator("polyline").count(), 2);
  await accessible(page, "workflow with its graph");
  await fits(page, "workflow with its graph");
  await page.goBack();
  await card.getByLabel("Comment").fill("very good");
  await card.getByRole("button", { name: "Approve look" }).click();
  await page.getByText("Nothing waits for a person.").waitFor();
  await until(name, "WORKFLOW_STATE_SUCCEEDED");
  const { tasks } = await api("GET", "namespaces/default/tasks?pageSize=100");
  const last = tasks.find(
    (task) => task.step?.workflow.endsWith(name.split("/").at(-1)) && task.step.step === "deliver",
  );
  assert.equal((await api("GET", last.name)).status.result.text.trim(), "very good");
  await page.context().close();
});

test("a workflow shows the group that it waits for", async () => {
  const page = await signedIn();
  const steps = [{ name: "look", approval: { prompt: "Is it good?" } }];
  const create = (title) =>
    api("POST", "namespaces/default/workflows", {
      spec: { title, steps, concurrency: { group: "deploy-<b>here</b>" } },
    });
  const first = await create("the first of them");
  const second = await create("the second of them");
  await page.getByRole("link", { name: "Workflows" }).click();
  await page.locator("tr", { hasText: "the second of them" }).getByText("waits for its group").waitFor();
  await page.getByRole("link", { name: "the second of them" }).click();
  await page.getByText("Waits for a place in the workflow group deploy-<b>here</b>").waitFor();
  await accessible(page, "workflow of a group");
  await api("POST", `${first.name}:decide`, { step: "look", decision: "STEP_DECISION_APPROVE" });
  await page.getByText("In the workflow group deploy-<b>here</b>").waitFor();
  await api("POST", `${second.name}:decide`, { step: "look", decision: "STEP_DECISION_REJECT" });
  await page.context().close();
});

nothingFailed();
