// The control centre below a path of its host, behind a proxy that leaves the path in requests and one that removes it, in a real
// browser. Whatever the pages ask for elsewhere on the host fails the tests.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { after, before, test } from "node:test";
import {
  api,
  base,
  browser,
  newPage,
  nothingFailed,
  run,
  setUp,
  shell,
  show,
  signOut,
  tasksShown,
} from "./harness.mjs";

const PATH = "/team/rota";

setUp({ args: ["--base-path", PATH], path: PATH });

/** Requests of pages that another program of the host would have got. */
const strays = [];
const proxies = {
  "leaves the path": (path) => path,
  "removes the path": (path) => path.slice(PATH.length) || "/",
};
const servers = [];
const addresses = {};

before(async () => {
  for (const [name, forward] of Object.entries(proxies)) {
    const server = createServer((incoming, outgoing) => {
      if (!`${incoming.url}/`.startsWith(`${PATH}/`)) {
        strays.push(`${name}: ${incoming.url}`);
        outgoing.writeHead(404).end();
        return;
      }
      const { method, headers } = incoming;
      const passed = request(`${base}${forward(incoming.url)}`, { method, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode, answer.headers);
        // Events are passed on one by one.
        outgoing.flushHeaders();
        answer.pipe(outgoing);
      });
      passed.on("error", () => outgoing.destroy());
      outgoing.on("close", () => passed.destroy());
      incoming.pipe(passed);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    servers.push(server);
    addresses[name] = `http://127.0.0.1:${server.address().port}`;
  }
});

after(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

/** A page that has signed in by the link of `rota ui`, at a proxy. */
async function signedInAt(origin) {
  const page = await newPage(await browser.newContext({ locale: "en-US" }));
  const link = new URL((await run(["ui"])).trim());
  await page.goto(`${origin}${PATH}/${link.hash}`);
  await tasksShown(page);
  return page;
}

const pathOf = (page) => new URL(page.url()).pathname;

test("a link to the server itself leads below the path", async () => {
  const page = await newPage(await browser.newContext());
  await page.goto((await run(["ui"])).trim());
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  assert.equal(pathOf(page), `${PATH}/tasks`);
  await page.goto(`${base}/workflows/new`);
  await page.getByText("The server accepts it.").waitFor();
  assert.equal(pathOf(page), `${PATH}/workflows/new`);
  await page.context().close();
});

for (const name of Object.keys(proxies)) {
  test(`pages work behind a proxy that ${name}`, async () => {
    const page = await signedInAt(addresses[name]);
    const { port } = new URL(addresses[name]);
    assert.equal(pathOf(page), `${PATH}/tasks`);
    const cookies = await page.context().cookies(`${addresses[name]}${PATH}/api/v1/`);
    assert.deepEqual(
      cookies.map(({ name, path }) => [name, path]),
      [[`rota-session-${port}`, `${PATH}/api/`]],
    );
    // Other programs of the host do not get it.
    assert.deepEqual(await page.context().cookies(`${addresses[name]}/api/`), []);

    for (const one of ["Inbox", "Workflows", "Agents", "Schedules", "Costs", "Alerts", "Metrics", "System"]) {
      await page.getByRole("navigation").getByRole("link", { name: one }).click();
      await page.getByRole("heading", { level: 1, name: one }).waitFor();
      assert.equal(pathOf(page), `${PATH}/${one.toLowerCase()}`);
      await page.reload();
      await page.getByRole("heading", { level: 1, name: one }).waitFor();
    }

    // The documentation of the API makes its calls below the path, too.
    await page.getByRole("navigation").getByRole("link", { name: "API" }).click();
    await page.locator("#operations-tag-Agent").click();
    const call = page.locator("#operations-Agent-getAgent");
    await call.getByRole("button").first().click();
    await call.getByRole("button", { name: "Try it out" }).click();
    await call.getByPlaceholder("namespace").fill("default");
    await call.getByPlaceholder("agent", { exact: true }).fill("shell");
    const called = page.waitForResponse(/\/namespaces\/default\/agents\/shell$/);
    await call.getByRole("button", { name: "Execute" }).click();
    const answer = await called;
    assert.equal(answer.url(), `${addresses[name]}${PATH}/api/v1/namespaces/default/agents/shell`);
    assert.equal(answer.status(), 200);

    // Live, over the stream of events, and a page with a log that is downloaded.
    const title = `a task of who ${name}`;
    await page.keyboard.press("t");
    await shell("echo printed", "--title", title);
    await show(page, title);
    await page.getByRole("link", { name: title }).click();
    await page.getByRole("region", { name: "Log" }).getByText("printed", { exact: true }).waitFor();
    assert.match(pathOf(page), /^\/team\/rota\/tasks\/default\/[0-9a-f-]{36}$/);
    await page.reload();
    await page.getByRole("region", { name: "Log" }).getByText("printed", { exact: true }).waitFor();
    const download = page.waitForEvent("download");
    await page.getByRole("link", { name: "Download", exact: true }).click();
    assert.ok((await download).url().startsWith(`${addresses[name]}${PATH}/api/v1/`));

    // The editor and the graph are loaded later.
    await page.goto(`${addresses[name]}${PATH}/workflows/new`);
    await page.getByText("The server accepts it.").waitFor();
    await page.getByRole("img", { name: "Graph of 2 steps" }).waitFor();
    const steps = [{ name: "look", approval: { prompt: "Is it good?" } }];
    const made = await api("POST", "namespaces/default/workflows", { spec: { title: "asks", steps } });
    await page.getByRole("link", { name: /Inbox/ }).click();
    await page.getByRole("button", { name: "Approve look" }).click();
    await page.getByText("Nothing waits for a person.").waitFor();
    await page.goto(`${addresses[name]}${PATH}/workflows/default/${made.name.split("/").at(-1)}`);
    await page.locator(".bar .state.succeeded").waitFor();
    await page.getByRole("button", { name: "Find" }).click();
    await page.getByRole("dialog", { name: "Find" }).getByRole("combobox").waitFor();
    await page.keyboard.press("Escape");

    await signOut(page);
    await page.getByLabel("Token").waitFor();
    assert.deepEqual(await page.context().cookies(`${addresses[name]}${PATH}/api/v1/`), []);
    await page.context().close();
    assert.deepEqual(strays, []);
  });
}

nothingFailed();
