// Pages and actions by keyboard alone and by pointer alone, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  api,
  base,
  eventually,
  nothingFailed,
  scripted,
  settled,
  setUp,
  signedIn,
  tasksShown,
  until,
  WAYS,
} from "./harness.mjs";

setUp();

const button = (within, name) => within.getByRole("button", { name, exact: true, disabled: false });
const idOf = (name) => name.split("/").at(-1);
const ownedBy = async (owner) =>
  (await api("GET", `namespaces/default/tasks?pageSize=100&filter.owner=${owner}`)).tasks ?? [];

/** Creates two tasks that wait for an agent that does not exist. */
async function waitingTasks(owner) {
  const names = [];
  for (const number of ["one", "two"]) {
    names.push(await scripted(`${owner} ${number}`, [], { owner, target: { agent: "missing" } }));
  }
  return names;
}

/** Creates tasks of an owner, which fail, and opens the page that lists them. */
async function failedTasks(owner, ...titles) {
  const names = [];
  for (const title of titles) {
    const spec = { owner, retry: { maxAttempts: 1 } };
    names.push(await scripted(title, [{ fail: { message: "no luck" } }], spec));
  }
  for (const name of names) {
    await until(name, "TASK_STATE_FAILED");
  }
  const page = await signedIn();
  await page.goto(`${base}/tasks?owner=${owner}`);
  return { page, names, rows: page.getByRole("region", { name: "Tasks" }).locator("tbody tr") };
}

/** Types over the value of a field. */
async function retype({ type }, page, field, text) {
  await type(page, field, "");
  await page.keyboard.press("Control+a");
  await page.keyboard.type(text);
}

const desired = async (name) => (await api("GET", name)).desiredState;
const isSuspended = async (name) => (await desired(name)) === "DESIRED_STATE_SUSPENDED";

test("every page is opened by its key, by Tab and Enter, and by pointer", async () => {
  const page = await signedIn();
  const links = page.getByRole("navigation", { name: "Pages" }).getByRole("link");
  const count = await links.count();
  // The list of keys is the page's own.
  await page.getByRole("button", { name: "Keyboard shortcuts" }).click();
  const keys = page.getByRole("dialog", { name: "Keyboard" }).locator("dl > div");
  await keys.nth(count).waitFor();
  const pages = (await keys.allInnerTexts()).slice(0, count).map((text) => text.split(/\s+/).filter(Boolean));
  assert.equal(pages.length, 10);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  const ways = {
    "its key": (key) => page.keyboard.press(key),
    "Tab and Enter": (_key, link) => WAYS.keyboard.press(page, link),
    pointer: (_key, link) => WAYS.pointer.press(page, link),
  };
  for (const [way, open] of Object.entries(ways)) {
    await page.goto(`${base}/tasks`);
    await tasksShown(page);
    for (const [key, name] of pages) {
      const link = links.filter({ hasText: name });
      assert.equal(await link.getAttribute("aria-current"), null, `${name} by ${way}`);
      const before = await page.locator("main h1").first().elementHandle();
      await open(key, link);
      await links.and(page.locator("[aria-current=page]")).filter({ hasText: name }).waitFor();
      // The link is current before the page is loaded, whose heading then takes the focus.
      await page.waitForFunction((before) => {
        const at = document.activeElement;
        return at !== before && at?.matches("main h1");
      }, before);
    }
  }
  await page.context().close();
});

test("the row that the keyboard has reached is in view", async () => {
  const names = await waitingTasks("below");
  const page = await signedIn({ viewport: { width: 800, height: 240 } });
  await page.goto(`${base}/tasks?owner=below`);
  const row = page.getByRole("region", { name: "Tasks" }).locator("tbody tr").nth(1);
  await row.waitFor();
  const isInView = () =>
    row.evaluate((row) => {
      const { top, bottom } = row.getBoundingClientRect();
      // Scrolling ends at whole pixels.
      return top > -1 && bottom < innerHeight + 1;
    });
  assert.equal(await isInView(), false);
  await settled(page);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await eventually(isInView, "the current row is out of view");
  for (const name of names) {
    await api("POST", `${name}:cancel`, {});
  }
  await page.context().close();
});

for (const [way, { press, type, choose }] of Object.entries(WAYS)) {
  const replace = (...args) => retype({ type }, ...args);
  /** Presses the button of an action, and the one that confirms it. */
  const confirm = async (page, opener, name) => {
    await press(page, button(page, opener));
    await press(page, button(page.getByRole("dialog", { name }), name));
  };

  test(`selected tasks are suspended, resumed, ranked, cancelled and retried by ${way}`, async () => {
    const owner = `chosen-by-${way}`;
    const names = await waitingTasks(owner);
    const page = await signedIn();
    await page.goto(`${base}/tasks?owner=${owner}`);
    const rows = page.getByRole("region", { name: "Tasks" }).locator("tbody tr");
    await rows.nth(1).waitFor();
    const current = (row) => page.locator(`tbody tr:nth-child(${row})[aria-current="true"]`);
    const select = async () => {
      if (way === "pointer") {
        await rows.nth(0).getByRole("checkbox").click();
        await rows.nth(1).getByRole("checkbox").click();
      } else {
        await settled(page);
        await page.keyboard.press("j");
        await page.keyboard.press("j");
        await current(2).waitFor();
        await page.keyboard.press("x");
        await page.keyboard.press("k");
        await current(1).waitFor();
        await page.keyboard.press("x");
      }
      await page.getByText("2 selected.").waitFor();
    };
    const act = async (name, priority) => {
      await select();
      await press(page, button(page, name));
      const dialog = page.getByRole("dialog", { name });
      await dialog.getByText(`${name}${priority ? " of" : ""} 2 tasks?`).waitFor();
      if (priority) {
        await replace(page, dialog.getByLabel("Priority, from 0 to 10"), priority);
      }
      await press(page, button(dialog, name));
      await page.getByText("2 selected.").waitFor({ state: "detached" });
    };
    await act("Suspend");
    assert.deepEqual(await Promise.all(names.map(isSuspended)), [true, true]);
    await act("Resume");
    assert.deepEqual(await Promise.all(names.map(isSuspended)), [false, false]);
    await act("Set priority", "8");
    const priorities = await Promise.all(names.map(async (name) => (await api("GET", name)).priority));
    assert.deepEqual(priorities, [8, 8]);
    await act("Cancel");
    for (const name of names) {
      await until(name, "TASK_STATE_CANCELLED");
    }
    await act("Retry");
    const again = (await ownedBy(owner)).filter(({ name }) => !names.includes(name));
    assert.deepEqual(again.map(({ spec }) => spec.title).sort(), [`${owner} one`, `${owner} two`]);
    await rows.nth(3).waitFor();
    for (const { name } of again) {
      await api("POST", `${name}:cancel`, {});
    }
    await page.context().close();
  });

  test(`all tasks that match are suspended, resumed and retried by ${way}`, async () => {
    const owner = `matching-by-${way}`;
    const names = await waitingTasks(owner);
    const page = await signedIn();
    await page.goto(`${base}/tasks?owner=${owner}`);
    await page.getByRole("link", { name: `${owner} two` }).waitFor();
    const act = async (name, action) => {
      await press(page, page.getByRole("button", { name: "All that match" }));
      const dialog = page.getByRole("dialog", { name: "All tasks that match" });
      await choose(page, dialog.getByLabel("Action"), action);
      await press(page, button(dialog, "Count them"));
      await press(page, button(dialog, `${name} 2 tasks`));
      await dialog.getByText("2 of 2 tasks changed.").waitFor();
      await press(page, button(dialog, "Close"));
      await dialog.waitFor({ state: "detached" });
    };
    await act("Suspend", "TASK_ACTION_SUSPEND");
    assert.deepEqual(await Promise.all(names.map(isSuspended)), [true, true]);
    await act("Resume", "TASK_ACTION_RESUME");
    assert.deepEqual(await Promise.all(names.map(isSuspended)), [false, false]);
    for (const name of names) {
      await api("POST", `${name}:cancel`, {});
      await until(name, "TASK_STATE_CANCELLED");
    }
    await act("Retry", "TASK_ACTION_RETRY");
    const again = (await ownedBy(owner)).filter(({ name }) => !names.includes(name));
    assert.deepEqual(again.map(({ spec }) => spec.title).sort(), [`${owner} one`, `${owner} two`]);
    // Nothing is left of a filter that is cleared.
    await press(page, button(page, "Clear"));
    await page.waitForURL((url) => url.pathname === "/tasks" && url.search === "");
    await page.waitForFunction(() => document.querySelector('input[name="owner"]')?.value === "");
    for (const { name } of again) {
      await api("POST", `${name}:cancel`, {});
    }
    await page.context().close();
  });

  test(`a task gets a message, is cancelled and retried by ${way}`, async () => {
    const name = await scripted(`steered by ${way}`, [{ hang: true }]);
    await until(name, "TASK_STATE_RUNNING");
    const page = await signedIn();
    await page.goto(`${base}/tasks/default/${idOf(name)}`);
    await type(page, page.getByLabel("Message to the agent"), "Be brief");
    await press(page, button(page, "Send"));
    await page.getByText("Sent.").waitFor();
    await page.getByRole("region", { name: "Log" }).getByText("answer: Be brief").waitFor();
    await press(page, button(page, "Cancel"));
    await press(page, button(page.getByRole("dialog"), "Cancel"));
    await until(name, "TASK_STATE_CANCELLED");
    await press(page, button(page, "Retry"));
    await press(page, button(page.getByRole("dialog"), "Retry"));
    await page.waitForURL((url) => !url.pathname.endsWith(idOf(name)));
    const next = `namespaces/default/tasks/${idOf(new URL(page.url()).pathname)}`;
    assert.equal((await api("GET", next)).spec.title, `steered by ${way}`);
    await api("POST", `${next}:cancel`, {});
    await page.context().close();
  });

  test(`a question and approvals are answered by ${way}`, async () => {
    const task = await scripted(`asked by ${way}`, [{ ask: "Which way?" }, { succeed: "arrived" }]);
    const page = await signedIn();
    await page.goto(`${base}/inbox`);
    const form = page.getByRole("form", { name: "Answer" });
    await type(page, form.getByRole("textbox"), "left");
    await press(page, button(form, "Answer"));
    await page.getByText("Nothing waits for a person.").waitFor();
    await until(task, "TASK_STATE_SUCCEEDED");
    const decisions = { Approve: "WORKFLOW_STATE_SUCCEEDED", Reject: "WORKFLOW_STATE_FAILED" };
    for (const [decision, state] of Object.entries(decisions)) {
      const steps = [{ name: "look", approval: { prompt: "Is it good?" } }];
      const spec = { title: `${decision} by ${way}`, steps };
      const { name } = await api("POST", "namespaces/default/workflows", { spec });
      const card = page.getByRole("article", { name: spec.title });
      await type(page, card.getByLabel("Comment"), "seen");
      await press(page, button(card, `${decision} look`));
      await page.getByText("Nothing waits for a person.").waitFor();
      await until(name, state);
    }
    await page.context().close();
  });

  test(`effects are reversed by hand, which is resolved by ${way}`, async () => {
    const command = (shell) => ({
      target: { agent: "shell" },
      retry: { maxAttempts: 1 },
      runtime: { command: { shell } },
    });
    const steps = [
      { name: "first", task: command("true"), compensate: command("false") },
      { name: "second", needs: [{ step: "first" }], task: command("false") },
    ];
    const spec = { title: `reversed by ${way}`, onFailure: "ON_STEP_FAILURE_COMPENSATE", steps };
    const { name } = await api("POST", "namespaces/default/workflows", { spec });
    const page = await signedIn();
    await page.goto(`${base}/workflows/default/${idOf(name)}`);
    // Moves what is below it when it is drawn.
    await page.getByRole("img", { name: "Graph of 2 steps" }).waitFor();
    const form = page.getByRole("region", { name: "Failed compensation of first" });
    await type(page, form.getByLabel("Reason"), "dropped the table");
    await press(page, button(form, "Reversed by hand"));
    await page
      .getByText("Compensation: succeeded; resolved as done by an admin: dropped the table")
      .waitFor();
    await page.locator(".bar .state.failed").waitFor();
    await page.context().close();
  });

  test(`a task that keeps failing is acknowledged by ${way}`, async () => {
    const retry = { maxAttempts: 50, initialBackoff: "0.2s" };
    const steps = [{ fail: { message: "no luck", attempts: 3 } }, { hang: true }];
    const name = await scripted(`failing by ${way}`, steps, { retry });
    const page = await signedIn();
    await page.goto(`${base}/inbox`);
    const card = page.getByRole("article", { name: `failing by ${way}` });
    await press(page, button(card, "Acknowledge"));
    await page.getByText("Nothing waits for a person.").waitFor();
    await api("POST", `${name}:cancel`, {});
    await page.context().close();
  });

  test(`an agent is scaled, let have tasks again, drained and suspended by ${way}`, async () => {
    const own = `worked-by-${way}`;
    const agent = { spec: { runtime: { scripted: {} }, maxReplicas: 1 } };
    await api("POST", `namespaces/default/agents?agentId=${own}`, agent);
    const spec = { target: { agent: own } };
    const page = await signedIn();
    await page.goto(`${base}/agents`);
    const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: own });
    const dialog = page.getByRole("dialog");
    await press(page, button(page, `Scale ${own}`));
    await replace(page, dialog.getByLabel("At least"), "1");
    await replace(page, dialog.getByLabel("At most"), "2");
    await press(page, button(dialog, "Scale"));
    await row.getByRole("cell", { name: "1 to 2" }).waitFor();

    const refused = [];
    for (let count = 0; count < 6; count += 1) {
      refused.push(await scripted("refused", [{ fail: { class: "auth", message: "a bad key" } }], spec));
    }
    await row.getByText("circuit breaker open").waitFor();
    for (const name of refused) {
      await api("POST", `${name}:cancel`, {});
    }
    await confirm(page, `Reset the breaker of ${own}`, "Reset the breaker");
    await row.getByText("circuit breaker").waitFor({ state: "detached" });

    const name = await scripted("the last of its worker", [{ hang: true }], spec);
    await until(name, "TASK_STATE_RUNNING");
    const { worker } = (await api("GET", name)).status;
    await confirm(page, `Drain ${own}`, "Drain");
    const workers = page.getByRole("region", { name: "Workers" });
    await workers
      .locator("tr", { hasText: idOf(worker) })
      .getByRole("cell", { name: "draining", exact: true })
      .waitFor();
    await api("POST", `${name}:cancel`, {});
    await confirm(page, `Suspend ${own}`, "Suspend");
    await row.getByRole("cell", { name: "suspended" }).waitFor();
    await page.context().close();
  });

  test(`a schedule is paused, resumed and run by ${way}`, async () => {
    const own = `nightly-by-${way}`;
    const runtime = { scripted: { steps: [{ succeed: "done" }] } };
    const spec = { cron: "0 3 * * *", task: { spec: { target: { agent: "script" }, runtime } } };
    await api("POST", `namespaces/default/schedules?scheduleId=${own}`, { spec });
    const page = await signedIn();
    await page.goto(`${base}/schedules`);
    const row = page.locator("tr", { hasText: own });
    await press(page, button(page, `Pause ${own}`));
    await row.getByText("paused", { exact: true }).waitFor();
    await press(page, button(page, `Resume ${own}`));
    await row.getByText("paused", { exact: true }).waitFor({ state: "detached" });
    await confirm(page, `Run now: ${own}`, "Run now");
    await row.locator(".state.succeeded").waitFor();
    await page.context().close();
  });

  test(`a workflow is typed, paused, resumed, cancelled and run again by ${way}`, async () => {
    const page = await signedIn();
    await page.goto(`${base}/workflows`);
    await press(page, page.getByRole("link", { name: "New workflow" }));
    await page.getByText("The server accepts it.").waitFor();
    await press(page, button(page, "Run"));
    await page.waitForURL(/workflows\/default\/[0-9a-f-]{36}/);
    const first = idOf(new URL(page.url()).pathname);
    const state = (name) => page.locator(`.bar .state.${name}`);
    // Nothing else runs by then.
    await button(page, "Approve approve").waitFor();
    await press(page, button(page, "Pause"));
    await state("paused").waitFor();
    await press(page, button(page, "Resume"));
    await state("running").waitFor();
    await confirm(page, "Cancel", "Cancel");
    await state("cancelled").waitFor();
    await confirm(page, "Run again", "Run again");
    await page.waitForURL((url) => !url.pathname.endsWith(first));
    const next = `namespaces/default/workflows/${idOf(new URL(page.url()).pathname)}`;
    await api("POST", `${next}:cancel`, {});
    await until(next, "WORKFLOW_STATE_CANCELLED");
    await page.context().close();
  });

  test(`the namespace gets a budget, which is removed, by ${way}`, async () => {
    const page = await signedIn();
    await page.goto(`${base}/costs`);
    const form = page.getByRole("form", { name: "Budget of the namespace" });
    await replace(page, form.getByLabel("Dollars a day"), "2");
    await press(page, button(form, "Set budget"));
    await form.getByText("Saved.").waitFor();
    const daily = async () => {
      const { budgets = [] } = await api("GET", "namespaces/default/budgets");
      return budgets.find(({ name }) => name === "namespaces/default")?.budget?.dailyMicroUsd;
    };
    assert.equal(await daily(), "2000000");
    await confirm(page, "Remove budget", "Remove budget");
    await eventually(async () => (await daily()) === undefined, "the budget stays");
    await page.context().close();
  });
}

test("failed tasks retried together wait no more", async () => {
  const owner = "failed-together";
  const { page, names, rows } = await failedTasks(owner, "one", "two");
  await rows.nth(0).getByRole("checkbox").click();
  await rows.nth(1).getByRole("checkbox").click();
  await button(page, "Retry").click();
  await button(page.getByRole("dialog", { name: "Retry" }), "Retry").click();
  await page.getByText("2 selected.").waitFor({ state: "detached" });
  const copies = (await ownedBy(owner)).filter(({ name }) => !names.includes(name));
  const settled = await Promise.all(names.map((name) => api("GET", name)));
  assert.deepEqual(
    settled.map(({ labels }) => labels?.["rota.dev/replayed"]).sort(),
    copies.map(({ uid }) => uid).sort(),
  );
  await page.context().close();
});

test("a failed task that someone else has settled is not left selected to be retried", async () => {
  const owner = "settled-by-others";
  const { page, names } = await failedTasks(owner, owner);
  const [name] = names;
  await page.getByLabel(`Select ${owner}`).check();
  await button(page, "Retry").click();
  // What changes from here on, the person has not seen.
  await api("PATCH", `${name}?updateMask=labels`, { labels: { "rota.dev/replayed": "never" } });
  await button(page.getByRole("dialog", { name: "Retry" }), "Retry").click();
  await page.getByRole("alert").filter({ hasText: "the task was dismissed meanwhile" }).waitFor();
  await page.getByText("1 selected.").waitFor({ state: "detached" });
  assert.equal((await ownedBy(owner)).length, 1);
  await page.context().close();
});

test("a selected task that someone else settles before Retry is run again on purpose only", async () => {
  const owner = "noticed-too-late";
  const { page, names } = await failedTasks(owner, owner);
  const [name] = names;
  const select = page.getByLabel(`Select ${owner}`);
  const isSettled = page.getByRole("region", { name: "Tasks" }).getByText("settled", { exact: true });
  const dialog = page.getByRole("dialog", { name: "Retry" });
  const retry = async () => {
    await button(page, "Retry").click();
    await button(dialog, "Retry").click();
  };
  await select.check();
  // A call that has failed leaves it selected as it was.
  const creation = /:retry$/;
  await page.route(creation, (route) => route.abort());
  await retry();
  await page.getByRole("alert").filter({ hasText: "cannot be reached" }).waitFor();
  await page.unroute(creation);
  await api("PATCH", `${name}?updateMask=labels`, { labels: { "rota.dev/replayed": "never" } });
  await isSettled.waitFor();
  await retry();
  await page.getByRole("alert").filter({ hasText: "the task was dismissed meanwhile" }).waitFor();
  await page.getByText("1 selected.").waitFor({ state: "detached" });
  assert.equal((await ownedBy(owner)).length, 1);
  await select.check();
  await button(page, "Retry").click();
  await dialog.getByText("Retry 1 task? Settled already: 1.").waitFor();
  await button(dialog, "Retry").click();
  await page.getByText("1 selected.").waitFor({ state: "detached" });
  await eventually(async () => (await ownedBy(owner)).length === 2, "it is not run again");
  assert.equal((await api("GET", name)).labels["rota.dev/replayed"], "never");
  await page.context().close();
});

test("a retried task of a batch that failed in part is run again on purpose", async () => {
  const owner = "failed-in-part";
  const { page, names, rows } = await failedTasks(owner, "one", "two");
  // Copies have the same title.
  const [one, two] = names.map((name) => rows.filter({ has: page.locator(`a[href$="/${idOf(name)}"]`) }));
  const dialog = page.getByRole("dialog", { name: "Retry" });
  await one.getByRole("checkbox").check();
  await two.getByRole("checkbox").check();
  const creation = new RegExp(`${idOf(names[1])}:retry$`);
  await page.route(creation, (route) => route.abort());
  await button(page, "Retry").click();
  await button(dialog, "Retry").click();
  await page.getByRole("alert").filter({ hasText: "1 of 2 failed" }).waitFor();
  await page.getByText("1 selected.").waitFor();
  await page.unroute(creation);
  await one.getByText("settled", { exact: true }).waitFor();
  await two.getByRole("checkbox").uncheck();
  await one.getByRole("checkbox").check();
  await button(page, "Retry").click();
  await dialog.getByText("Retry 1 task? Settled already: 1.").waitFor();
  await button(dialog, "Retry").click();
  await page.getByText("1 selected.").waitFor({ state: "detached" });
  const isCopy = ({ name, spec }) => spec.title === "one" && !names.includes(name);
  await eventually(async () => (await ownedBy(owner)).filter(isCopy).length === 2, "it is not run again");
  await page.context().close();
});

nothingFailed();
