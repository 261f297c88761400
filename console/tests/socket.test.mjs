// The WebSocket of the HTTP API, from pages: with a session, with a token as in the documentation, and from elsewhere. From
// elsewhere also gRPC-Web.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import {
  adminToken,
  base,
  browser,
  folder,
  freePort,
  nothingFailed,
  serve,
  setUp,
  signedIn,
  stop,
  WAIT_TIMEOUT,
} from "./harness.mjs";

setUp();

// Pages that the harness serves by itself have no address, and Chromium lets them open no WebSocket on this machine.
const options = { skip: Boolean(process.env.ROTA_CONSOLE_DIST) && "needs the pages of the program" };
const PAGE = readFileSync(new URL("../../docs/http-api.md", import.meta.url), "utf8");

test("the example of the documentation runs in a page", options, async () => {
  const [, example] = /```js\n([\s\S]*?)```/.exec(PAGE) ?? [];
  assert.ok(example?.includes("ws://127.0.0.1:7420"), "there is no example");
  const code = example.replace("ws://127.0.0.1:7420", base.replace("http", "ws"));
  const page = await signedIn();
  const run = `(async (token) => { ${code}; socket.onclose = null; socket.close(); return state; })`;
  assert.equal(await page.evaluate(`${run}(${JSON.stringify(adminToken())})`), "TASK_STATE_SUCCEEDED");
  await page.context().close();
});

/** Opens a connection with what the browser sends by itself; returns the first answer, or that there is none. */
const OPEN = `(address) => new Promise((resolve) => {
  const socket = new WebSocket(address, "rota.v1");
  socket.onerror = () => resolve("refused");
  socket.onopen = () => socket.send(JSON.stringify({
    type: "subscribe", id: "1", channel: "agents", parent: "namespaces/default",
  }));
  socket.onmessage = ({ data }) => { socket.close(); resolve(JSON.parse(data).type); };
})`;

/** Serves an empty page of another origin, and returns the server with its port. */
async function foreignPages() {
  const server = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<p>"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, port: server.address().port };
}

test("own pages connect with their session, others do not", options, async () => {
  const page = await signedIn();
  const address = JSON.stringify(`${base.replace("http", "ws")}/api/v1/ws`);
  assert.equal(await page.evaluate(`(${OPEN})(${address})`), "subscribed");
  const { server, port } = await foreignPages();
  const url = `http://127.0.0.1:${port}/`;
  const foreign = await page.context().newPage();
  await foreign.route(url, (route) => route.continue());
  await foreign.goto(url);
  // The browser would send the cookie: it is the same host.
  assert.equal(await foreign.evaluate(`(${OPEN})(${address})`), "refused");
  server.close();
  await page.context().close();
});

/** Calls ListTasks over gRPC-Web from a page; returns the answer as text, or that the browser gives it none. */
async function listTasks([endpoint, token]) {
  // Field 1 of the request is its parent, of 18 bytes.
  const message = new TextEncoder().encode("\n\u0012namespaces/default");
  const headers = {
    Authorization: `Bearer ${token}`,
    "Content-Type": "application/grpc-web+proto",
    "X-Grpc-Web": "1",
  };
  const body = new Uint8Array([0, 0, 0, 0, message.length, ...message]);
  try {
    const call = await fetch(`${endpoint}/rota.v1.TaskService/ListTasks`, { method: "POST", headers, body });
    return new TextDecoder().decode(await call.arrayBuffer());
  } catch {
    return "refused";
  }
}

test("pages of a named origin call over gRPC-Web, others do not", async () => {
  const token = "admin-0123456789012345678901234567890";
  const file = join(folder, "admin");
  writeFileSync(file, `${token}\n`, { mode: 0o600 });
  const { server, port } = await foreignPages();
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const place = ["--listen", new URL(endpoint).host, "--data-dir", join(folder, "called")];
  const named = ["--token-file", file, "--cors-origin", `http://127.0.0.1:${port}`];
  const called = await serve(["server", ...place, ...named], endpoint);
  const created = await fetch(`${endpoint}/api/v1/namespaces/default/tasks`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify({ spec: { target: { agent: "missing" }, prompt: "Wait" } }),
  });
  const { name } = await created.json();
  // Not by `newPage`: with a route of the context Playwright answers preflight requests in place of the server.
  const page = await browser.newPage();
  page.setDefaultTimeout(WAIT_TIMEOUT);
  const callFrom = async (host) => {
    await page.goto(`http://${host}:${port}/`);
    return page.evaluate(listTasks, [endpoint, token]);
  };
  const answer = await callFrom("127.0.0.1");
  assert.ok(name && answer.includes(name), answer);
  assert.match(answer, /grpc-status: ?0/);
  // The same server by another name is another origin.
  assert.equal(await callFrom("localhost"), "refused");
  await page.close();
  await stop(called);
  server.close();
});

nothingFailed();
