import { expect, test } from "vitest";
import type { Event, StateChange } from "../../api/types";
import { lasted, MAX_SPANS, placeOf, Timeline, textOf, totalsOf } from "./timeline";

type State = NonNullable<StateChange["to"]>;
const START = Date.parse("2030-01-01T00:00:00Z");
let seq = 0;

const entry = (millis: number, attempt: number, kind: Event): Event => ({
  logSeq: `${++seq}`,
  time: new Date(START + millis).toISOString(),
  attempt,
  ...kind,
});
const state = (millis: number, attempt: number, from: string, to: string, reason: string, more = {}) =>
  entry(millis, attempt, {
    state: { from: `TASK_STATE_${from}` as State, to: `TASK_STATE_${to}` as State, reason, ...more },
  });
const of = (...events: Event[]) => {
  const timeline = new Timeline();
  timeline.add(events);
  return timeline;
};
const rows = (timeline: Timeline) =>
  timeline.spans.map(({ text, from, to }) => [text, from - START, to === undefined ? null : to - from]);

/** A failed attempt, a tool with one of a subagent, a question, and success. */
const log = () => [
  state(0, 0, "UNSPECIFIED", "PENDING", "created"),
  state(0, 0, "PENDING", "QUEUED", "ready"),
  state(1000, 1, "QUEUED", "ASSIGNED", "assigned", { worker: "namespaces/n/workers/one" }),
  state(1500, 1, "ASSIGNED", "RUNNING", "started", { worker: "namespaces/n/workers/one" }),
  state(3000, 1, "RUNNING", "PENDING", "retry", {
    message: "too much",
    failure: { class: "FAILURE_CLASS_RATE_LIMIT", message: "too much" },
  }),
  state(5000, 1, "PENDING", "QUEUED", "ready"),
  state(5000, 2, "QUEUED", "ASSIGNED", "assigned", { worker: "namespaces/n/workers/two" }),
  state(5000, 2, "ASSIGNED", "RUNNING", "started", { worker: "namespaces/n/workers/two" }),
  entry(6000, 2, { toolCall: { callId: "t", tool: "Task", inputJson: '{"description":"look"}' } }),
  entry(6100, 2, {
    toolCall: { callId: "c", tool: "Bash", inputJson: '{"x":"y","command":"ls"}', parentCallId: "t" },
  }),
  entry(6250, 2, { toolResult: { callId: "c", output: "no such file\nat all", isError: true } }),
  entry(6500, 2, { toolResult: { callId: "t", output: "done" } }),
  entry(7000, 2, { inputRequest: { requestId: "q", prompt: "which one?" } }),
  state(7000, 2, "RUNNING", "INPUT_REQUIRED", "input_required"),
  entry(9000, 2, { inputReceived: { input: { requestId: "q", text: "the first" } } }),
  state(9000, 2, "INPUT_REQUIRED", "RUNNING", "input_settled"),
  entry(9800, 2, { workEnded: {} }),
  state(10_000, 2, "RUNNING", "SUCCEEDED", "succeeded"),
];

test("attempts, waits and tools have their times", () => {
  const timeline = of(...log());
  expect(rows(timeline)).toEqual([
    ["Waits for a free slot", 0, 1000],
    ["Waits for one to begin", 1000, 500],
    ["Runs on one: rate limit: too much", 1500, 1500],
    ["Waits for the rate limit", 3000, 2000],
    ["Runs on two", 5000, 5000],
    ["Task: look", 6000, 500],
    ["Bash: ls: failed: no such file at all", 6100, 150],
    ["Asks: which one?", 7000, 2000],
    ["Stores what the attempt has left", 9800, 200],
    ["succeeded", 10_000, 0],
  ]);
  expect(timeline.spans.filter((span) => span.isFailed).map((span) => span.what)).toEqual([
    "running",
    "tools",
  ]);
  expect(timeline.spans.map((span) => span.depth)).toEqual([0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
  expect(totalsOf(timeline.spans, 0)).toEqual([
    ["a free slot", 1000],
    ["the worker", 500],
    ["running", 4500],
    ["the rate limit", 2000],
    ["tools", 500],
    ["a person", 2000],
    ["storage", 200],
  ]);
});

test("what lasts has no end, and its time so far", () => {
  const timeline = of(state(0, 0, "UNSPECIFIED", "PENDING", "created"));
  const [span] = timeline.spans;
  expect(span && textOf(span, {})).toBe("Waits for its conditions");
  const waiting = [{ reason: "WAIT_REASON_DEPENDENCY" as const, subject: "first" }];
  expect(span && textOf(span, { status: { waiting } })).toBe("Waits for its conditions: dependency first");
  expect(totalsOf(timeline.spans, START + 4000)).toEqual([["its conditions", 4000]]);
  timeline.add([state(4000, 0, "PENDING", "QUEUED", "ready")]);
  const before = { spec: { dependsOn: [{ task: "first" }] }, status: { waiting } };
  expect(timeline.spans.map((span) => textOf(span, before))).toEqual([
    "Waited for first",
    "Waits for a free slot: dependency first",
  ]);
});

test("calls and questions end with their attempt, unless the task waits for the answer", () => {
  const running = log().slice(0, 9);
  const asks = entry(6200, 2, { inputRequest: { requestId: "q", prompt: "which one?" } });
  const lost = of(...running, asks, state(7000, 2, "RUNNING", "PENDING", "worker_lost", { message: "lost" }));
  expect(rows(lost).slice(-4)).toEqual([
    ["Runs on two: lost", 5000, 2000],
    ["Task: look", 6000, 1000],
    ["Asks: which one?", 6200, 800],
    ["Waits for another worker", 7000, null],
  ]);
  const released = of(...running, asks, state(7000, 2, "INPUT_REQUIRED", "PENDING", "released"));
  released.add([
    entry(9000, 2, { inputReceived: { input: { requestId: "q" } } }),
    state(9000, 2, "PENDING", "QUEUED", "ready"),
  ]);
  expect(rows(released).slice(-3)).toEqual([
    ["Asks: which one?", 6200, 2800],
    ["Waits for a person", 7000, 2000],
    ["Waits for a free slot", 9000, null],
  ]);
  // Two spans of the same wait count once.
  expect(totalsOf(released.spans, START + 9000).at(-1)).toEqual(["a person", 2800]);
});

test("a log that is read from its middle has what runs", () => {
  const timeline = new Timeline();
  timeline.beginAfter(1000);
  timeline.add([
    entry(500, 3, { output: {} }),
    entry(1000, 3, { toolCall: { callId: "c", tool: "Bash" } }),
    state(2000, 3, "RUNNING", "CANCELLED", "cancelled", { message: "by a person" }),
  ]);
  expect(rows(timeline)).toEqual([
    ["Runs, since before what was read of the log", 500, 1500],
    ["Bash", 1000, 1000],
    ["cancelled: by a person", 2000, 0],
  ]);
  expect(timeline.missing).toEqual({ entries: 1000, spans: 0 });
});

test("notices that cost time are moments, and others are left out", () => {
  const notice = (code: string, severity: "SEVERITY_LOW" | "SEVERITY_MEDIUM") =>
    entry(10, 1, { notice: { code, severity, message: code } });
  const timeline = of(
    notice("runtime_started", "SEVERITY_LOW"),
    notice("api_retry", "SEVERITY_LOW"),
    notice("odd", "SEVERITY_MEDIUM"),
  );
  expect(rows(timeline)).toEqual([
    ["api_retry", 10, 0],
    ["odd", 10, 0],
  ]);
});

test("clocks of workers move nothing before the task, and end nothing before it began", () => {
  const early = entry(-50_000, 2, { toolCall: { callId: "x", tool: "Bash" } });
  const ended = entry(-60_000, 2, { toolResult: { callId: "x" } });
  expect(rows(of(...log().slice(0, 8), early, ended)).at(-1)).toEqual(["Bash", 0, 0]);
});

test("spans are bounded: tools are left out first, and what lasts is kept", () => {
  const timeline = of(...log().slice(0, 8));
  const states = timeline.spans.length;
  for (let call = 0; call < 2 * MAX_SPANS; call += 1) {
    timeline.add([
      entry(6000 + call, 2, { toolCall: { callId: `${call}`, tool: "Bash" } }),
      ...(call === 0 ? [] : [entry(6000 + call, 2, { toolResult: { callId: `${call}` } })]),
    ]);
  }
  expect(timeline.spans.length).toBeLessThanOrEqual(MAX_SPANS * 1.1);
  expect(timeline.spans.slice(0, states).map((span) => span.kind)).not.toContain("tool");
  expect(timeline.spans[states]).toMatchObject({ from: START + 6000, to: undefined });
  expect(timeline.missing.spans + timeline.spans.length).toBe(states + 2 * MAX_SPANS);
});

test("texts of agents hide nothing, and are short", () => {
  const timeline = of(
    entry(0, 1, {
      toolCall: { callId: "c", tool: "B\u202e", inputJson: `{"command":"${"x".repeat(500)}"}` },
    }),
  );
  expect(timeline.spans[0]?.text).toMatch(/^B\[U\+202E\]: x{120}…$/);
});

test("times and places", () => {
  expect([0, 250, 1500, 12_000, 300_000].map(lasted)).toEqual(["0 ms", "250 ms", "1.5 s", "12 s", "5 min"]);
  const span = of(...log()).spans[2];
  expect(span && placeOf(span, START, START + 10_000)).toEqual({ left: 15, width: 15 });
  const open = of(state(1000, 0, "UNSPECIFIED", "PENDING", "created")).spans[0];
  expect(open && placeOf(open, START, START + 2000)).toEqual({ left: 50, width: 50 });
  expect(open && placeOf(open, START + 1000, START + 1000)).toEqual({ left: 0, width: 0 });
});
