// pg-boss: workers that fetch batches, and fetch again immediately while batches are full. 0.5 s is the shortest interval it allows.

import { PgBoss } from "pg-boss";
import { handle, ready } from "../common/handler.mjs";
import { QUEUE, options } from "./queue.mjs";

const boss = new PgBoss({ ...options, supervise: false, schedule: false });
boss.on("error", console.error);
await boss.start();
await boss.work(
  QUEUE,
  { batchSize: 100, localConcurrency: 4, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true },
  async (jobs) => jobs.forEach((job) => handle(job.data)),
);
ready();
