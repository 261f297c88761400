// graphile-worker: the settings of its page on performance.

import { Logger, run } from "graphile-worker";
import { handle, ready } from "../common/handler.mjs";

const runner = await run({
  preset: {
    worker: {
      connectionString: process.env.DATABASE_URL,
      concurrentJobs: 24,
      maxPoolSize: 25,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      logger: new Logger(() => (level, message) => level === "error" && console.error(message)),
    },
  },
  taskList: { bench: handle },
});
runner.promise.catch((error) => {
  console.error(error);
  process.exit(1);
});
ready();
