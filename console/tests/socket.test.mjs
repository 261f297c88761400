// The WebSocket of the HTTP API, from pages: with a session, with a token as in the documentation, and from elsewhere.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { test } from "node:test";
import { adminToken, base, nothingFailed, setUp, signedIn } from "./harness.mjs";

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

test("own pages connect with their session, others do not", options, async () => {
  const page = await signedIn();
  const address = JSON.stringify(`${base.replace("http", "ws")}/api/v1/ws`);
  assert.equal(await page.evaluate(`(${OPEN})(${address})`), "subscribed");
  const server = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<p>"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}/`;
  const foreign = await page.context().newPage();
  await foreign.route(url, (route) => route.continue());
  await foreign.goto(url);
  // The browser would send the cookie: it is the same host.
  assert.equal(await foreign.evaluate(`(${OPEN})(${address})`), "refused");
  server.close();
  await page.context().close();
});

nothingFailed();
