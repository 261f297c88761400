// Restate: a one-way call of a handler per task, which may have steps, over its HTTP ingress. It has no call for batches.

import * as clients from "@restatedev/restate-sdk-clients";
import { measure } from "../common/load.mjs";

const tasks = clients.connect({ url: process.env.BENCH_INGRESS }).serviceSendClient({ name: "bench" });

async function settled() {
  const query = "select count(*) as unfinished from sys_invocation where status != 'completed'";
  const response = await fetch(`${process.env.BENCH_ADMIN}/query`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify({ query }),
  });
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()).rows[0].unfinished === 0;
}

await measure({ worker: new URL("worker.mjs", import.meta.url), create: (task) => tasks.handle(task), settled });
