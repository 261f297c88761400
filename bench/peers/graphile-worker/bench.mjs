// graphile-worker: addJob() per task, addJobs() per batch.

import { makeWorkerUtils } from "graphile-worker";
import pg from "pg";
import { measure } from "../common/load.mjs";

const pgPool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.BENCH_CONNECTIONS) });
pgPool.on("error", console.error);
pgPool.on("connect", (client) => client.on("error", console.error));
const utils = await makeWorkerUtils({ pgPool });
await utils.migrate();
// A completed job is deleted.
const unfinished = "select exists (select from graphile_worker._private_jobs) as some";

await measure({
  worker: new URL("worker.mjs", import.meta.url),
  create: (task) => utils.addJob("bench", task),
  createMany: (tasks) => utils.addJobs(tasks.map((payload) => ({ identifier: "bench", payload }))),
  settled: async () => !(await pgPool.query(unfinished)).rows[0].some,
});
await utils.release();
await pgPool.end();
