// Restate: the service with the handler, on HTTP/2, registered with the server. Each step is journaled before the next one.

import http2 from "node:http2";
import * as restate from "@restatedev/restate-sdk";
import { handle, ready } from "../common/handler.mjs";

const steps = Number(process.env.BENCH_STEPS);

async function run(context, task) {
  for (let step = 0; step < steps; step++) await context.run(`step ${step}`, () => step);
  handle(task);
}

const service = restate.service({ name: "bench", handlers: { handle: run } });
const server = http2.createServer(restate.createEndpointHandler({ services: [service] }));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const response = await fetch(`${process.env.BENCH_ADMIN}/deployments`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ uri: `http://127.0.0.1:${server.address().port}` }),
});
if (!response.ok) throw new Error(await response.text());
ready();
