// Large graphs on a canvas, and runs that continue earlier ones, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessible,
  api,
  base,
  eventually,
  fits,
  hold,
  nothingFailed,
  settled,
  setUp,
  signedIn,
  until,
  WAIT_TIMEOUT,
  WAYS,
} from "./harness.mjs";

setUp();

const pageOf = (name) => `${base}/workflows/default/${name.split("/").at(-1)}`;
const create = (spec) => api("POST", "namespaces/default/workflows", { spec });

/** Number of pixels of a canvas that are not empty. */
const drawn = (canvas) =>
  canvas.evaluate((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.reduce((count, value, at) => count + (at % 4 === 3 && value > 0 ? 1 : 0), 0);
  });

const pictureOf = (canvas) => canvas.evaluate((canvas) => canvas.toDataURL());

test("a graph of many steps is drawn, moved and searched, also by keyboard", async () => {
  const fan = Array.from({ length: 600 }, (_, index) => ({
    name: `step-${index}`,
    needs: [{ step: "begin" }],
    approval: { prompt: "Go on?" },
  }));
  const begin = { name: "begin", approval: { prompt: "Begin?" } };
  const end = { name: "end", needs: [{ step: "step-42" }, { step: "step-7" }], approval: { prompt: "End?" } };
  const { name } = await create({ title: "wide", steps: [begin, ...fan, end] });
  const page = await signedIn({ colorScheme: "dark" });
  await page.goto(pageOf(name));
  const graph = page.getByRole("img", { name: "Graph of 602 steps" });
  await graph.waitFor();
  // The whole of it, which is higher than the window.
  await assertDrawn(graph);
  await page.getByLabel("Step", { exact: true }).fill("step-42");
  await page.keyboard.press("Enter");
  await page.getByText("step-42: waiting").waitFor();
  const near = await drawn(graph);
  assert.ok(near > 0);
  for (const [way, { press }] of Object.entries(WAYS)) {
    for (const name of ["Smaller", "Larger"]) {
      // Drawn after what was done before.
      await settled(page);
      const before = await pictureOf(graph);
      await press(page, page.getByRole("button", { name }));
      await eventually(async () => (await pictureOf(graph)) !== before, `${name} by ${way} changes nothing`);
    }
  }
  await graph.focus();
  await page.keyboard.press("+");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("0");
  await accessible(page, "a large graph, dark");
  await page.emulateMedia({ colorScheme: "light" });
  await accessible(page, "a large graph, light");
  await page.getByRole("button", { name: "Only what is connected" }).click();
  await page.getByRole("img", { name: "Graph of 3 steps" }).waitFor();
  await page.getByRole("button", { name: "Whole graph" }).click();
  await graph.waitFor();
  // A click on a step selects it.
  await page.getByLabel("Step", { exact: true }).fill("begin");
  await page.keyboard.press("Enter");
  await page.getByText("begin: running").waitFor();
  const box = await graph.boundingBox();
  await page.mouse.click(box.x + 3, box.y + 3);
  await page.getByText("begin: running").waitFor({ state: "detached" });
  await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
  await page.getByText("begin: running").waitFor();

  // The table has the same, in parts.
  const rows = page.getByRole("region", { name: "Steps" }).locator("tbody tr");
  await rows.nth(199).waitFor();
  assert.equal(await rows.count(), 200);
  await page.getByRole("button", { name: "Show more steps" }).click();
  await rows.nth(399).waitFor();
  await page.getByLabel("Find a step, or a state").fill("step-599");
  await page.getByText("1 of 602 steps").waitFor();
  assert.equal(await rows.count(), 1);
  await page.setViewportSize({ width: 360, height: 640 });
  await fits(page, "a large graph");
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

async function assertDrawn(graph) {
  const end = Date.now() + WAIT_TIMEOUT;
  while ((await drawn(graph)) === 0) {
    assert.ok(Date.now() < end, "nothing is drawn");
  }
}

const command = (line) => ({ target: { agent: "shell" }, runtime: { command: { shell: line } } });

test("a workflow is shown together with its graph, which moves nothing later", async () => {
  const approval = { prompt: "Go on?" };
  const second = { name: "second", needs: [{ step: "first" }], approval };
  const { name } = await create({ title: "in one piece", steps: [{ name: "first", approval }, second] });
  const page = await signedIn();
  await page.addInitScript(() => {
    // After 5 s the page is shown without its graph.
    const set = window.setTimeout;
    window.setTimeout = (run, time, ...more) => set(run, time === 5000 ? 2 ** 30 : time, ...more);
    const region = (label) => document.querySelector(`section[aria-label="${label}"]`);
    const look = () => {
      window.hasMoved ||= region("Steps") !== null && !region("Graph")?.querySelector("svg");
    };
    new MutationObserver(look).observe(document, { childList: true, subtree: true });
  });
  await page.goto(pageOf(name));
  await page.getByRole("region", { name: "Graph" }).locator("svg").waitFor();
  await page.getByRole("button", { name: "Approve first" }).waitFor();
  assert.equal(await page.evaluate(() => window.hasMoved), false);
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

test("a workflow whose specification stalls can be decided", async () => {
  const approval = { prompt: "Go on?" };
  const second = { name: "second", needs: [{ step: "first" }], approval };
  const { name } = await create({ title: "stalled", steps: [{ name: "first", approval }, second] });
  const page = await signedIn();
  await page.clock.install();
  const { held, release } = await hold(page, new RegExp(`/api/v1/${name}$`));
  await page.goto(pageOf(name));
  await held;
  await page.clock.fastForward(5000);
  await page.getByRole("button", { name: "Approve first" }).waitFor();
  release();
  await page.getByRole("region", { name: "Graph" }).locator("svg").waitFor();
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

test("groups of a graph are opened and closed, and the address keeps it", async () => {
  const inner = {
    steps: [
      { name: "push", task: command("echo pushed") },
      { name: "check", needs: [{ step: "push" }], task: command("echo checked") },
    ],
  };
  const steps = [
    { name: "deploy", workflow: { spec: inner } },
    { name: "each", forEach: { items: "[1, 2, 3]" }, task: command("echo ${{ item }}") },
    { name: "notify", needs: [{ step: "deploy" }, { step: "each" }], task: command("echo notified") },
  ];
  const { name } = await create({ title: "grouped", steps });
  await until(name, "WORKFLOW_STATE_SUCCEEDED");
  const page = await signedIn({ colorScheme: "light" });
  await page.goto(pageOf(name));
  const graph = (count) => page.getByRole("group", { name: `Graph of ${count} steps` });
  await graph(3).waitFor();
  // A group that is closed is one node, with its count.
  const deploy = page.getByRole("button", { name: "deploy · 2 of 2: succeeded" });
  await deploy.waitFor();
  assert.equal(await deploy.getAttribute("aria-expanded"), "false");
  await deploy.focus();
  await page.keyboard.press("Enter");
  await graph(5).waitFor();
  assert.equal(await deploy.getAttribute("aria-expanded"), "true");
  assert.equal(new URL(page.url()).searchParams.get("open"), "deploy");
  // By pointer.
  await page.getByRole("button", { name: "each · 3 of 3: succeeded" }).click();
  await graph(8).waitFor();
  await accessible(page, "open groups, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "open groups, dark");

  // The table has the same in text, and the address opens it again.
  await page.reload();
  await graph(8).waitFor();
  const table = page.getByRole("region", { name: "Steps" });
  const entries = table.getByRole("listitem");
  await entries.filter({ hasText: "check" }).locator(".state.succeeded").waitFor();
  await entries.filter({ hasText: "#2" }).locator(".state.succeeded").waitFor();
  assert.equal(await entries.count(), 5);
  await page.setViewportSize({ width: 360, height: 640 });
  await fits(page, "open groups");
  const inside = table.getByRole("button", { name: "What is inside of deploy" });
  await inside.focus();
  await page.keyboard.press("Enter");
  await graph(6).waitFor();
  assert.equal(await entries.count(), 3);
  assert.equal(new URL(page.url()).searchParams.get("open"), "each");
  // An item leads to its task.
  await entries.filter({ hasText: "#0" }).getByRole("link").click();
  await page.waitForURL(/\/tasks\/default\//);
  await page.goBack();
  await graph(6).waitFor();
  await page.context().close();
});

test("groups of a large graph are opened on the canvas by Enter, and have not begun at first", async () => {
  const fan = Array.from({ length: 300 }, (_, index) => ({
    name: `step-${index}`,
    needs: [{ step: "begin" }],
    approval: { prompt: "Go on?" },
  }));
  const inner = {
    steps: [
      { name: "push", task: command("true") },
      { name: "check", task: command("true") },
    ],
  };
  const steps = [
    { name: "begin", approval: { prompt: "Begin?" } },
    { name: "deploy", needs: [{ step: "begin" }], workflow: { spec: inner } },
    ...fan,
  ];
  const { name } = await create({ title: "large and grouped", steps });
  const page = await signedIn();
  await page.goto(pageOf(name));
  const graph = (count) => page.getByRole("img", { name: `Graph of ${count} steps` });
  await graph(302).waitFor();
  await page.getByLabel("Step", { exact: true }).fill("deploy");
  await page.keyboard.press("Enter");
  await page.getByText("deploy: waiting, 0 of 2").waitFor();
  await graph(302).focus();
  await page.keyboard.press("Enter");
  await graph(304).waitFor();
  assert.equal(new URL(page.url()).searchParams.get("open"), "deploy");
  await page.getByRole("button", { name: "Close the group" }).click();
  await graph(302).waitFor();
  assert.equal(new URL(page.url()).searchParams.get("open"), null);
  await page.getByRole("button", { name: "Open the group" }).click();
  await graph(304).waitFor();
  await accessible(page, "an open group on a canvas");
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

test("a run continues from a step, with the results of the others", async () => {
  const task = (line) => ({ target: { agent: "shell" }, runtime: { command: { shell: line } } });
  const { name } = await create({
    title: "again",
    steps: [
      { name: "first", task: task("echo one") },
      { name: "second", needs: [{ step: "first" }], task: task("echo two") },
    ],
  });
  const page = await signedIn();
  await page.goto(pageOf(name));
  await page.locator(".bar .state.succeeded").waitFor();
  await page.getByRole("button", { name: "Run again from here: second" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByRole("button", { name: "Run again from here" }).click();
  await page.waitForURL((url) => !url.pathname.endsWith(name.split("/").at(-1)));
  // For a moment the page still shows the first run.
  await until(`namespaces/default/workflows/${page.url().split("/").at(-1)}`, "WORKFLOW_STATE_SUCCEEDED");
  await page.locator(".bar .state.succeeded").waitFor();
  const tasks = async (workflow) => {
    const { tasks = [] } = await api(
      "GET",
      `namespaces/default/tasks?filter.workflow=${workflow.split("/").at(-1)}`,
    );
    return tasks.map((task) => task.step.step).sort();
  };
  assert.deepEqual(await tasks(name), ["first", "second"]);
  assert.deepEqual(await tasks(page.url()), ["second"]);
  await page.context().close();
});

nothingFailed();
