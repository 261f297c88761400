import { expect, test } from "vitest";
import { columns, GRAPHS, seconds } from "./series";

const graph = (title: string) => {
  const found = GRAPHS.find((one) => one.title === title);
  if (!found) {
    throw new Error(title);
  }
  return found;
};
const history = {
  step: "60s",
  points: [
    { startTime: "1970-01-01T00:02:00Z", createdTasks: "3", queuedTasks: 1.5, wait: { p50: "0.250s" } },
    { startTime: "1970-01-01T00:04:00Z", failedTasks: "1" },
  ],
};

test("a missing point is nothing of a count, and unknown of all else", () => {
  expect(columns(history, graph("Tasks"), [60, 250]).slice(0, 2)).toEqual([
    [60, 120, 180, 240],
    [0, 3, 0, 0],
  ]);
  expect(columns(history, graph("Queue"), [60, 250])[1]).toEqual([null, 1.5, null, 0]);
  expect(columns(history, graph("Wait"), [60, 250])[1]).toEqual([null, 0.25, null, null]);
});

test("an empty history has times all the same", () => {
  expect(columns({}, graph("Cost"), [0, 120])).toEqual([
    [0, 60, 120],
    [0, 0, 0],
  ]);
});

test("durations are read as seconds", () => {
  expect([seconds("1.5s"), seconds("0s"), seconds(undefined)]).toEqual([1.5, 0, null]);
});
