import { expect, test } from "vitest";
import { hasPlace, Lines, lineOf, MAX_CHARACTERS, MAX_LINE, MAX_LINES } from "./lines";

const base64 = (text: string | number[]) => {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : Uint8Array.from(text);
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
};

const output = (
  data: string,
  logSeq = "1",
  stream: "OUTPUT_STREAM_STDOUT" | "OUTPUT_STREAM_STDERR" = "OUTPUT_STREAM_STDOUT",
) => ({ logSeq, output: { stream, data } });

const linesOf = (...events: Parameters<Lines["add"]>[0]) => {
  const lines = new Lines();
  lines.add(events);
  return lines;
};

const texts = (lines: Lines) => lines.all.map((line) => line.text);

test("output is joined over events", () => {
  const lines = linesOf(output(base64("one\ntw")));
  lines.add([output(base64("o\nthree"), "2")]);
  expect(texts(lines)).toEqual(["one", "two", "three"]);
  expect(lines.all.map((line) => line.complete)).toEqual([true, true, false]);
});

test("characters are joined over events, each stream for itself", () => {
  const [first, second] = [base64([0x61, 0xe2, 0x82]), base64([0xac, 0x0a])];
  const lines = linesOf(
    output(first),
    output(base64("error\n"), "2", "OUTPUT_STREAM_STDERR"),
    output(second, "3"),
  );
  expect(texts(lines).join("|")).toBe("a|error|€");
});

test("another attempt continues neither lines nor characters", () => {
  const cut = base64([0x61, 0xe2, 0x82]);
  const lines = linesOf({ ...output(cut), attempt: 1 }, { ...output(base64("b"), "2"), attempt: 2 });
  expect(texts(lines)).toEqual(["a\ufffd", "b"]);
});

test("streams are not mixed", () => {
  const lines = linesOf(output(base64("a")), output(base64("b"), "2", "OUTPUT_STREAM_STDERR"));
  expect(lines.all.map((line) => [line.kind, line.text])).toEqual([
    ["stdout", "a"],
    ["stderr", "b"],
  ]);
});

test("states are notes", () => {
  const state = { to: "TASK_STATE_RUNNING", reason: "started", worker: "namespaces/n/workers/w" } as const;
  expect(texts(linesOf({ logSeq: "1", state }))).toEqual(["running on w (started)"]);
});

test("gaps are noted", () => {
  const dropped = { stream: "OUTPUT_STREAM_STDOUT", data: base64("b\n"), droppedBytes: "77" } as const;
  const found = texts(linesOf(output(base64("a\n")), { logSeq: "5", output: dropped }));
  expect(found.length).toBe(4);
  expect(found[1]).toContain("3 entries");
  expect(found[2]).toContain("77 bytes");
});

test("long lines are broken, and cost what they add", () => {
  const lines = new Lines();
  const chunk = base64("😀".repeat(16 << 10));
  for (let index = 1; index <= 64; index += 1) {
    lines.add([output(chunk, String(index))]);
  }
  expect(lines.all.every((line) => line.text.length <= MAX_LINE)).toBe(true);
  expect(texts(lines).join("")).toBe("😀".repeat(64 * (16 << 10)));
  expect(texts(lines).some((text) => /^[\udc00-\udfff]/.test(text))).toBe(false);
});

test("old lines are left out with their number", () => {
  const lines = linesOf(output(base64("x\n".repeat(MAX_LINES + 1))));
  expect(lines.all[0]?.text).toMatch(/^5001 earlier lines/);
  expect(lines.all.length).toBe(MAX_LINES * 0.9 + 1);
  lines.add([output(base64("x\n".repeat(MAX_LINES)), "2")]);
  expect(lines.all[0]?.text).toMatch(/^55001 earlier lines/);
});

test("the log is bounded in characters", () => {
  const lines = new Lines();
  const chunk = base64("y".repeat(64 << 10));
  for (let index = 1; index <= MAX_CHARACTERS / (64 << 10) + 10; index += 1) {
    lines.add([output(chunk, String(index))]);
  }
  expect(texts(lines).join("").length).toBeLessThan(MAX_CHARACTERS + 100);
  expect(lines.all[0]?.text).toMatch(/earlier lines/);
});

test("lines know the entry in which they begin, and are found by it", () => {
  const lines = linesOf(
    output(base64("one\ntw")),
    output(base64("o\nthree\nfour\n"), "2"),
    output(base64("five\n"), "3"),
  );
  expect(lines.all.map((line) => line.seq)).toEqual([1, 1, 2, 2, 3]);
  expect([lineOf(lines.all, 2, "TWO"), lineOf(lines.all, 2, "three"), lineOf(lines.all, 3)]).toEqual([
    1, 2, 4,
  ]);
  expect([lineOf(lines.all, 2), lineOf([], 1, "x")]).toEqual([2, -1]);
});

test("a part of a log lacks nothing before it", () => {
  const lines = new Lines(8);
  lines.add([output(base64("nine\n"), "9"), output(base64("eleven\n"), "11")]);
  expect(texts(lines)).toEqual(["nine", "1 entry of the log is missing here", "eleven"]);
});

test("a place that is left out in part is not there", () => {
  const note = {
    seq: 0,
    time: "",
    kind: "note",
    text: "3 earlier lines are left out",
    complete: true,
  } as const;
  const line = (seq: number, text: string) => ({ ...note, seq, kind: "stdout" as const, text });
  const kept = [note, line(5, "row 4"), line(5, "row 5"), line(6, "a Needle")];
  expect([hasPlace(kept, 5), hasPlace(kept, 6), hasPlace(kept, 4)]).toEqual([false, true, false]);
  expect([hasPlace(kept, 5, "needle"), hasPlace(kept, 6, "needle"), hasPlace(kept, 5, "row 5")]).toEqual([
    false,
    true,
    true,
  ]);
});

test("calls of subagents and their results are below the call that started them", () => {
  const call = (callId: string, parentCallId = "") => ({
    toolCall: { callId, tool: callId, inputJson: "{}", parentCallId },
  });
  const lines = linesOf(
    { logSeq: "1", attempt: 1, ...call("task") },
    { logSeq: "2", attempt: 1, ...call("inner", "task") },
    { logSeq: "3", attempt: 1, toolResult: { callId: "inner", output: "one\ntwo" } },
    { logSeq: "4", attempt: 1, toolResult: { callId: "task", output: "done" } },
    { logSeq: "5", attempt: 2, toolResult: { callId: "inner", output: "of another attempt" } },
  );
  expect(lines.all.map((line) => [line.text, line.depth ?? 0])).toEqual([
    ["task {}", 0],
    ["inner {}", 1],
    ["one", 1],
    ["two", 1],
    ["done", 0],
    ["of another attempt", 0],
  ]);
});
