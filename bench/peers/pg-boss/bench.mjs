// pg-boss: send() per task, insert() per batch.

import { PgBoss } from "pg-boss";
import { measure } from "../common/load.mjs";
import { NOTIFY, QUEUE, options } from "./queue.mjs";

const boss = new PgBoss({ ...options, max: Number(process.env.BENCH_CONNECTIONS) });
boss.on("error", console.error);
await boss.start();
await boss.createQueue(QUEUE, { notify: NOTIFY });
const unfinished = `select exists (select from pgboss.job where name = '${QUEUE}' and state < 'completed') as some`;

await measure({
  worker: new URL("worker.mjs", import.meta.url),
  create: (task) => boss.send(QUEUE, task),
  createMany: (tasks) => boss.insert(QUEUE, tasks.map((data) => ({ data }))),
  settled: async () => !(await boss.getDb().executeSql(unfinished)).rows[0].some,
});
await boss.stop({ graceful: false });
