// The load of every peer with a Node.js library: concurrent clients in this process, handlers in a process of their own.
// Knows no peer. Prints the samples that the head of measure.py documents.

import { fork } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

const setting = (name) => Number(process.env[name]);
const now = () => process.hrtime.bigint();

/**
 * Measures a peer.
 *
 * @param {object} peer
 * @param {URL} peer.worker file of the process with the handlers (see handler.mjs)
 * @param {(task: object) => Promise<unknown>} peer.create creates one task, and returns when that is durable
 * @param {(tasks: object[]) => Promise<unknown>} [peer.createMany] the same for a batch, if the peer has that
 * @param {() => Promise<boolean>} peer.settled whether the completion of all tasks is durable
 */
export async function measure({ worker, create, createMany, settled }) {
  const handlers = await startHandlers(worker);
  const untilSettled = async (count) => {
    while (handlers.count < count || !(await settled())) await sleep(5);
  };

  const idle = [];
  const deadline = performance.now() + 1000 * setting("BENCH_IDLE_SECONDS");
  while (idle.length < setting("BENCH_IDLE_TASKS") && performance.now() < deadline) {
    await sleep(Math.random() * Number(process.env.BENCH_IDLE_PAUSE ?? 0));
    const began = handlers.next();
    const start = now();
    await create({ timed: true });
    idle.push(Number((await began) - start));
  }
  await untilSettled(idle.length);

  const creation = [];
  const start = performance.now();
  const end = start + 1000 * setting("BENCH_SECONDS");
  const client = async () => {
    while (performance.now() < end) {
      const at = now();
      await create({});
      creation.push(Number(now() - at));
    }
  };
  await Promise.all(Array.from({ length: setting("BENCH_CLIENTS") }, client));
  const created = performance.now();
  await untilSettled(idle.length + creation.length);
  const load = { tasks: creation.length, creating_s: (created - start) / 1000, settled_s: (performance.now() - start) / 1000 };

  const bulk = createMany && (await batches(createMany, (count) => untilSettled(idle.length + creation.length + count)));
  handlers.stop();
  console.log(JSON.stringify({ idle_ns: idle, creation_ns: creation, load, bulk }));
}

async function batches(createMany, untilSettled) {
  const [tasks, size] = [setting("BENCH_BULK_TASKS"), setting("BENCH_BULK_SIZE")];
  const start = performance.now();
  for (let count = 0; count < tasks; count += size) await createMany(Array.from({ length: size }, () => ({})));
  const created = performance.now();
  await untilSettled(tasks);
  return { tasks, batch: size, creating_s: (created - start) / 1000, settled_s: (performance.now() - start) / 1000 };
}

// Starts the process with the handlers, and returns when it is ready for tasks.
async function startHandlers(worker) {
  const child = fork(worker, { stdio: ["ignore", 2, 2, "ipc"], serialization: "advanced" });
  const handlers = { count: 0, next: () => new Promise((resolve) => (handlers.began = resolve)), stop: () => child.kill() };
  const ready = new Promise((resolve) => (handlers.ready = resolve));
  child.on("message", ({ kind, value }) => {
    if (kind === "count") handlers.count = value;
    else handlers[kind](value);
  });
  child.on("exit", (code) => code && process.exit(code));
  process.on("exit", () => child.kill());
  await ready;
  return handlers;
}
