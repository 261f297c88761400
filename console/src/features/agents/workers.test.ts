import { expect, test } from "vitest";
import type { Worker } from "../../api/types";
import { sickFirst, stateOf } from "./workers";

test("workers that need attention come first, with the reason", () => {
  const workers: Worker[] = [
    { name: "well", connected: true },
    { name: "drained", draining: true },
    { name: "full", connected: true, notReadyReason: "disk full\u202e" },
    { name: "lost" },
    { name: "open", connected: true, breaker: "5 failures" },
  ];
  expect(sickFirst(workers).map((worker) => [worker.name, stateOf(worker)])).toEqual([
    ["full", "disk full[U+202E]"],
    ["lost", "disconnected"],
    ["open", "breaker: 5 failures"],
    ["well", "connected"],
    ["drained", "draining"],
  ]);
});
