// Agents, their bounds and their problems, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessible,
  api,
  base,
  eventually,
  fits,
  nothingFailed,
  scripted,
  setUp,
  signedIn,
  until,
} from "./harness.mjs";

setUp();

const AGENT = "namespaces/default/agents/script";

test("an agent is scaled, suspended and continued", async () => {
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  await page.getByRole("link", { name: "Agents" }).click();
  const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "script" });
  await row.getByRole("cell", { name: "0 to 2" }).waitFor();
  const dialog = page.getByRole("dialog");
  const scale = async (floor, ceiling) => {
    await page.getByRole("button", { name: "Scale script" }).click();
    await dialog.getByLabel("At least").fill(floor);
    await dialog.getByLabel("At most").fill(ceiling);
  };
  await scale("1", "3");
  await accessible(page, "scale");
  await fits(page, "scale");
  await page.keyboard.press("Enter");
  await row.getByRole("cell", { name: "1 to 3" }).waitFor();
  const { spec } = await api("GET", AGENT);
  assert.deepEqual([spec.replicas, spec.maxReplicas, spec.releaseWaitingAfter], [1, 3, "1s"]);
  await scale("4", "3");
  await dialog.getByRole("button", { name: "Scale" }).click();
  await page.getByRole("alert").filter({ hasText: "must not be below replicas" }).waitFor();
  await page.getByRole("button", { name: "Suspend script" }).click();
  await dialog.getByRole("button", { name: "Suspend" }).click();
  await row.getByRole("cell", { name: "suspended" }).waitFor();
  assert.ok(await page.getByRole("button", { name: "Suspend script" }).isDisabled());
  await row.locator("td:nth-child(2)", { hasText: /^0$/ }).waitFor();
  const name = await scripted("a patient one", [{ succeed: "done" }]);
  await row.locator("td:nth-child(4)", { hasText: /^1$/ }).waitFor();
  await scale("0", "1");
  await page.keyboard.press("Enter");
  await until(name, "TASK_STATE_SUCCEEDED");
  await page.context().close();
});

test("bounds that someone else has set meanwhile are shown, and overwritten only on demand", async () => {
  const set = (mask, spec) => api("PATCH", `${AGENT}?updateMask=${mask}`, { spec });
  await set("spec.replicas,spec.maxReplicas", { replicas: 0, maxReplicas: 2 });
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  await page.keyboard.press("a");
  const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "script" });
  await row.getByRole("cell", { name: "0 to 2" }).waitFor();
  const dialog = page.getByRole("dialog");
  const scale = async (ceiling, meanwhile) => {
    await page.getByRole("button", { name: "Scale script" }).click();
    await dialog.getByLabel("At most").fill(ceiling);
    await meanwhile();
    await page.keyboard.press("Enter");
  };
  const ceiling = async () => (await api("GET", AGENT)).spec.maxReplicas;
  // Something else of the agent is no conflict.
  await scale("3", () => set("spec.description", { description: "changed meanwhile" }));
  await row.getByRole("cell", { name: "0 to 3" }).waitFor();
  await scale("4", () => set("spec.maxReplicas", { maxReplicas: 5 }));
  const conflict = page.getByRole("region", { name: "Changed meanwhile" });
  await conflict.getByRole("alert").filter({ hasText: "At most is 5 now, and not 4" }).waitFor();
  assert.equal(await ceiling(), 5);
  await accessible(page, "a conflict");
  await fits(page, "a conflict");
  await conflict.getByRole("button", { name: "Keep what is there" }).click();
  await conflict.waitFor({ state: "detached" });
  assert.equal(await ceiling(), 5);
  await row.getByRole("cell", { name: "0 to 5" }).waitFor();
  await scale("4", () => set("spec.maxReplicas", { maxReplicas: 6 }));
  await conflict.getByRole("button", { name: "Overwrite with mine" }).focus();
  await page.keyboard.press("Enter");
  await row.getByRole("cell", { name: "0 to 4" }).waitFor();
  await conflict.waitFor({ state: "detached" });
  assert.equal(await ceiling(), 4);
  await page.context().close();
});

test("an agent whose breaker is open shows why and until when, and is let have tasks again", async () => {
  const page = await signedIn({ colorScheme: "light" });
  await page.keyboard.press("a");
  const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "script" });
  await row.waitFor();
  // The tasks are not to blame: they wait, and the breaker opens after some of them.
  const names = [];
  for (let count = 0; count < 6; count += 1) {
    names.push(await scripted("refused", [{ fail: { class: "auth", message: "a bad key <b>\u202e" } }]));
  }
  await row.getByText("circuit breaker open").waitFor();
  await row.getByText("a bad key <b>[U+202E]").waitFor();
  // Its end is exact, with its zone.
  await row.getByText("One task is tried at").locator("time").waitFor();
  await accessible(page, "an open breaker, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "an open breaker, dark");
  for (const name of names) {
    await api("POST", `${name}:cancel`, {});
  }
  await page.getByRole("button", { name: "Reset the breaker of script" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByRole("button", { name: "Reset the breaker" }).click();
  await row.getByText("circuit breaker").waitFor({ state: "detached" });
  assert.equal(await page.getByRole("button", { name: "Reset the breaker of script" }).count(), 0);
  await page.context().close();
});

test("an agent is drained: its workers end what they run, and take nothing new", async () => {
  const page = await signedIn();
  const name = await scripted("the last of a worker", [{ hang: true }]);
  await until(name, "TASK_STATE_RUNNING");
  const { worker } = (await api("GET", name)).status;
  const id = worker.split("/").at(-1);
  await page.keyboard.press("a");
  const row = page.getByRole("region", { name: "Workers" }).locator("tr", { hasText: id });
  await row.getByRole("cell", { name: "connected", exact: true }).waitFor();
  await page.getByRole("button", { name: "Drain script" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("Let all workers of script end what they run").waitFor();
  await dialog.getByRole("button", { name: "Drain" }).click();
  await row.getByRole("cell", { name: "draining", exact: true }).waitFor();
  const { workers } = await api("GET", "namespaces/default/workers");
  assert.ok(workers.find((one) => one.name.endsWith(`/${id}`)).draining);
  assert.equal((await api("GET", name)).status.state, "TASK_STATE_RUNNING");
  // The next task runs on another worker.
  const next = await scripted("after it", [{ succeed: "done" }]);
  await until(next, "TASK_STATE_SUCCEEDED");
  assert.notEqual((await api("GET", next)).status.worker, worker);
  await api("POST", `${name}:cancel`, {});
  await row.waitFor({ state: "detached" });
  await page.context().close();
});

test("a worker shows what it has done last", async () => {
  // Idle workers beyond the floor are stopped after a minute: all there may be are kept.
  const spec = { replicas: 4, maxReplicas: 4 };
  await api("PATCH", `${AGENT}?updateMask=spec.replicas,spec.maxReplicas`, { spec });
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  const name = await scripted("a last one", [{ fail: { message: "no luck" } }], {
    retry: { maxAttempts: 1 },
  });
  await until(name, "TASK_STATE_FAILED");
  const { worker } = (await api("GET", name)).status;
  await page.getByRole("link", { name: "Agents" }).click();
  const row = page
    .getByRole("region", { name: "Workers" })
    .locator("tr", { hasText: worker.split("/").at(-1) });
  const summary = row.locator("summary");
  const isOpen = async () => {
    // A row that moves loses the focus.
    if ((await row.locator("details[open]").count()) === 0) {
      await summary.press("Enter");
    }
    return (await row.locator("details[open]").count()) > 0;
  };
  await eventually(isOpen, "the events do not open");
  const entry = row.getByRole("listitem").filter({ hasText: name.split("/").at(-1) });
  await entry.filter({ hasText: "failed" }).waitFor();
  await entry.filter({ hasText: "started" }).waitFor();
  await accessible(page, "events of a worker");
  await fits(page, "events of a worker");
  await entry.filter({ hasText: "failed" }).getByRole("link").click();
  await page.getByRole("heading", { name: "a last one" }).waitFor();
  await page.context().close();
});

test("numbers of agents are live without a reading of the lists for each", async () => {
  const spec = { runtime: { scripted: {} }, management: "MANAGEMENT_EXTERNAL" };
  await api("POST", "namespaces/default/agents?agentId=filling", { spec });
  const page = await signedIn();
  const begin = Date.now();
  await page.getByRole("link", { name: "Agents" }).click();
  const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "filling" });
  await row.getByRole("cell", { name: "external" }).waitFor();
  const reads = [];
  page.on("request", (request) => {
    if (/\/(agents|workers)\?pageSize/.test(request.url())) {
      reads.push(request.url());
    }
  });
  const names = [];
  for (let count = 1; count <= 20; count += 1) {
    names.push(await scripted("one of many", [], { target: { agent: "filling" } }));
    await row.locator("td:nth-child(4)", { hasText: new RegExp(`^${count}$`) }).waitFor();
  }
  // Both lists every 10 s, and a few times for the begin of the streams and for workers that come or leave meanwhile.
  const most = 2 * ((Date.now() - begin) / 10_000 + 4);
  assert.ok(reads.length <= most, `${reads.length} readings of lists for ${names.length} changes`);
  for (const name of names) {
    await api("POST", `${name}:cancel`, {});
  }
  await row.locator("td:nth-child(4)", { hasText: /^0$/ }).waitFor();
  await page.context().close();
});

test("agents are read again at an interval, also while the stream changes them", async () => {
  const agent = "namespaces/default/agents/changing";
  const set = (maxReplicas) =>
    api("PATCH", `${agent}?updateMask=spec.maxReplicas`, { spec: { maxReplicas } });
  const spec = { runtime: { command: {} } };
  await api("POST", "namespaces/default/agents?agentId=changing", { spec });
  const page = await signedIn();
  await page.clock.install();
  await page.goto(`${base}/agents`);
  const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "changing" });
  const change = async (maxReplicas) => {
    await set(maxReplicas);
    await row.getByRole("cell", { name: `0 to ${maxReplicas}`, exact: true }).waitFor();
  };
  await row.waitFor();
  // What the begin of the streams has read again.
  await page.clock.fastForward(10_000);
  await page.clock.fastForward(10_000);
  await change(2);
  let reads = 0;
  page.on("request", (request) => {
    reads += /\/agents\?pageSize/.test(request.url()) ? 1 : 0;
  });
  for (const maxReplicas of [3, 4, 5]) {
    await page.clock.fastForward(5000);
    await change(maxReplicas);
  }
  assert.ok(reads > 0, "agents are not read");
  await page.context().close();
});

test("an agent whose workers do not start shows why", async () => {
  const spec = { runtime: { command: {} }, management: "MANAGEMENT_EXTERNAL" };
  await api("POST", "namespaces/default/agents?agentId=stuck", { spec });
  for (const colorScheme of ["light", "dark"]) {
    const page = await signedIn({ colorScheme, viewport: { width: 360, height: 640 } });
    await page.getByRole("link", { name: "Agents" }).click();
    const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "stuck" });
    await row.getByRole("cell", { name: "external" }).waitFor();
    // As an operator reports it.
    const message = `no image ${colorScheme} <b>\u202e`;
    await api("POST", "namespaces/default/agents/stuck:report", { message });
    await row.getByText(`no image ${colorScheme} <b>[U+202E]`).waitFor();
    assert.equal(await page.getByRole("button", { name: "Scale stuck" }).count(), 0);
    await accessible(page, `a problem of an agent, ${colorScheme}`);
    await fits(page, "a problem of an agent");
    await page.context().close();
  }
});

nothingFailed();
