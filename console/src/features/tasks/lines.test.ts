import { expect, test } from "vitest";
import { linesOf } from "./lines";

const output = (
  text: string,
  logSeq = "1",
  stream: "OUTPUT_STREAM_STDOUT" | "OUTPUT_STREAM_STDERR" = "OUTPUT_STREAM_STDOUT",
) => ({
  logSeq,
  output: { stream, data: btoa(text) },
});

test("output is joined over events", () => {
  const lines = linesOf(linesOf([], [output("one\ntw")]), [output("o\nthree", "2")]);
  expect(lines.map((line) => line.text)).toEqual(["one", "two", "three"]);
  expect(lines.map((line) => line.complete)).toEqual([true, true, false]);
});

test("streams are not mixed", () => {
  const lines = linesOf([], [output("a"), output("b", "2", "OUTPUT_STREAM_STDERR")]);
  expect(lines.map((line) => [line.kind, line.text])).toEqual([
    ["stdout", "a"],
    ["stderr", "b"],
  ]);
});

test("states are notes", () => {
  const state = { to: "TASK_STATE_RUNNING", reason: "started", worker: "namespaces/n/workers/w" } as const;
  expect(linesOf([], [{ logSeq: "3", state }])[0]?.text).toBe("running on w (started)");
});

test("old lines are dropped", () => {
  const lines = linesOf([], [output("x\n".repeat(60_000))]);
  expect(lines.length).toBe(50_000);
});
