// The no-op handler of every peer with a Node.js library, and what its process reports to load.mjs.

let count = 0;
let reported = 0;

/** Handles a task; one that is timed reports when this began. */
export function handle(task) {
  if (task?.timed) process.send({ kind: "began", value: process.hrtime.bigint() });
  count += 1;
}

/** Reports that tasks can be created, and from then on the number of handled tasks. */
export function ready() {
  process.send({ kind: "ready" });
  process.on("disconnect", () => process.exit());
  setInterval(() => {
    if (count !== reported) process.send({ kind: "count", value: (reported = count) });
  }, 5);
}
