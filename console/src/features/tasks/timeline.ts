import { id, span as roughly, word } from "../../api/format";
import { fieldsOf, visibleLine } from "../../api/plain";
import type { Event, Failure, InputRequest, StateChange, Task } from "../../api/types";
import { Nesting } from "./nesting";

/** Sort of a span, for its colour. */
type Kind = "wait" | "run" | "tool" | "person" | "end" | "note";

/** Time that a task has spent on one thing. */
export interface Span {
  /** Position of the entry of the log with which it began. */
  seq: number;
  kind: Kind;
  /** What was waited for or done, for the totals; empty for a moment. */
  what: string;
  text: string;
  attempt: number;
  /** Milliseconds since 1970. */
  from: number;
  /** The same; `undefined` while it lasts. */
  to: number | undefined;
  isFailed: boolean;
  /** Of a tool: how far its caller is below the agent. */
  depth: number;
}

/** Spans that are kept: then the oldest calls of tools and notices are left out. */
export const MAX_SPANS = 2000;
/** Characters of a text of an agent. */
const MAX_TEXT = 120;
const ASKS = "TASK_STATE_INPUT_REQUIRED";
const RUNS = "TASK_STATE_RUNNING";

/** What a task without a worker waits for, by the reason of the state change. */
const WAITS: Record<string, string> = {
  created: "its conditions",
  retry: "its next attempt",
  undelivered: "its next delivery",
  cooling_down: "the rate limit",
  budget: "its budget",
  budget_spent: "its budget",
  released: "a person",
  suspended: "being resumed",
  agent_missing: "its agent",
  worker_lost: "another worker",
  handed_back: "another worker",
  not_taken: "another worker",
  rejected: "another worker",
};

/** Notices that explain time although they are harmless. */
const SLOW = ["api_retry", "rate_limit"];

const short = (text: string | undefined) => {
  const line = visibleLine(text);
  return line.length > MAX_TEXT ? `${line.slice(0, MAX_TEXT)}…` : line;
};

const failureText = (failure: Failure) =>
  `${word(failure.class, "FAILURE_CLASS_")}: ${short(failure.message)}`;

function waitOf({ reason = "", failure }: StateChange): string {
  if (reason === "retry" && failure?.class === "FAILURE_CLASS_RATE_LIMIT") {
    return "the rate limit";
  }
  if (reason === "retry" && failure?.class === "FAILURE_CLASS_OVERLOAD") {
    return "the overloaded model";
  }
  return WAITS[reason] ?? word(reason, "");
}

function toolText(tool: string | undefined, inputJson: string | undefined): string {
  const [first] = fieldsOf(inputJson ?? "") ?? [];
  return first ? `${short(tool)}: ${short(first[1])}` : short(tool);
}

function questionText(request: InputRequest): string {
  return request.kind === "INPUT_KIND_PERMISSION"
    ? `Asks for a permission: ${toolText(request.tool, request.inputJson)}`
    : `Asks: ${short(request.prompt)}`;
}

/** Attempts, waits and tools of a task with their times, from the entries of its log; in bounded memory. */
export class Timeline {
  #spans: Span[] = [];
  /** Span of the current state. */
  #phase: Span | undefined;
  #storing: Span | undefined;
  readonly #tools = new Map<string, Span>();
  readonly #questions = new Map<string, Span>();
  #nesting = new Nesting();
  #before = 0;
  #leftOut = 0;
  #last = 0;
  #changes = 0;

  /** All spans, by their begin. */
  get spans(): readonly Span[] {
    return this.#spans;
  }

  /** Grows with each change of the spans. */
  get changes(): number {
    return this.#changes;
  }

  /** Entries of the log that were not read, and spans that are not kept. */
  get missing(): { entries: number; spans: number } {
    return { entries: this.#before, spans: this.#leftOut };
  }

  /** Begins after an entry of the log. */
  beginAfter(entries: number): void {
    this.#before = entries;
  }

  add(events: Event[]): void {
    for (const event of events) {
      this.#add(event);
    }
    if (this.#spans.length > MAX_SPANS * 1.1) {
      this.#leaveOut();
    }
  }

  #add(event: Event): void {
    const { state, toolCall, toolResult, inputRequest, inputReceived, notice } = event;
    // Workers have clocks of their own: nothing begins before the task.
    const at = Math.max(Date.parse(event.time ?? "") || this.#last, this.#spans[0]?.from ?? 0);
    this.#last = Math.max(this.#last, at);
    if (this.#spans.length === 0 && this.#before > 0 && event.attempt && !state) {
      this.#phase = this.#begin(event, at, "run", "running", "Runs, since before what was read of the log");
    }
    if (state) {
      this.#state(event, state, at);
    } else if (toolCall) {
      const span = this.#begin(event, at, "tool", "tools", toolText(toolCall.tool, toolCall.inputJson));
      span.depth = this.#nesting.add(toolCall);
      this.#tools.set(toolCall.callId ?? "", span);
    } else if (toolResult) {
      const span = this.#tools.get(toolResult.callId ?? "");
      this.#tools.delete(toolResult.callId ?? "");
      this.#end(span, at, toolResult.isError ? `failed: ${short(toolResult.output)}` : "");
    } else if (inputRequest) {
      const span = this.#begin(event, at, "person", "a person", questionText(inputRequest));
      this.#questions.set(inputRequest.requestId ?? "", span);
    } else if (inputReceived) {
      const { requestId = "" } = inputReceived.input ?? {};
      this.#end(this.#questions.get(requestId), at);
      this.#questions.delete(requestId);
    } else if (event.workEnded) {
      this.#storing = this.#begin(event, at, "wait", "storage", "Stores what the attempt has left");
    } else if (notice) {
      const isHarmless = notice.severity === "SEVERITY_LOW" || !notice.severity;
      if (!isHarmless || SLOW.includes(notice.code ?? "")) {
        this.#moment(event, at, "note", short(notice.message));
      }
    }
  }

  #state(event: Event, change: StateChange, at: number): void {
    const { from, to = "", reason = "", failure, message, worker } = change;
    if (to === ASKS || (from === ASKS && to === RUNS)) {
      // The attempt continues: the question has a span of its own.
      return;
    }
    const isLost = reason === "worker_lost";
    const why = failure ? failureText(failure) : isLost ? short(message) || "the worker was lost" : "";
    this.#end(this.#phase, at, why);
    this.#end(this.#storing, at);
    this.#storing = undefined;
    if (from === RUNS || from === ASKS) {
      // Calls and questions that are open end with the attempt, unless the question is what is waited for.
      const open = [...this.#tools.values(), ...(reason === "released" ? [] : this.#questions.values())];
      for (const span of open) {
        this.#end(span, at);
      }
      this.#tools.clear();
      this.#nesting = new Nesting();
      if (reason !== "released") {
        this.#questions.clear();
      }
    }
    const name = short(id(worker));
    if (to === "TASK_STATE_PENDING") {
      const what = waitOf(change);
      const kind = reason === "released" ? "person" : "wait";
      const detail = !failure && !isLost && message ? ` (${short(message)})` : "";
      this.#phase = this.#begin(event, at, kind, what, `Waits for ${what}${detail}`);
    } else if (to === "TASK_STATE_QUEUED") {
      this.#phase = this.#begin(event, at, "wait", "a free slot", "Waits for a free slot");
    } else if (to === "TASK_STATE_ASSIGNED") {
      this.#phase = this.#begin(
        event,
        at,
        "wait",
        "the worker",
        `Waits for ${name || "its worker"} to begin`,
      );
    } else if (to === RUNS) {
      this.#phase = this.#begin(event, at, "run", "running", name ? `Runs on ${name}` : "Runs");
    } else {
      this.#phase = undefined;
      for (const span of this.#questions.values()) {
        this.#end(span, at);
      }
      const text = [word(to, "TASK_STATE_"), why || short(message)].filter(Boolean).join(": ");
      this.#moment(event, at, "end", text).isFailed = to === "TASK_STATE_FAILED";
    }
  }

  #begin(event: Event, from: number, kind: Kind, what: string, text: string): Span {
    const { logSeq, attempt = 0 } = event;
    const seq = Number(logSeq ?? 0);
    const span: Span = { seq, kind, what, text, attempt, from, to: undefined, isFailed: false, depth: 0 };
    this.#spans.push(span);
    this.#changes += 1;
    return span;
  }

  #moment(event: Event, at: number, kind: Kind, text: string): Span {
    const span = this.#begin(event, at, kind, "", text);
    span.to = at;
    return span;
  }

  #end(span: Span | undefined, at: number, why = ""): void {
    if (!span || span.to !== undefined) {
      return;
    }
    span.to = Math.max(span.from, at);
    if (why) {
      span.isFailed = true;
      span.text += `: ${why}`;
    } else if (span.kind === "wait" && span.to === span.from) {
      // Nothing was waited for.
      this.#spans.splice(this.#spans.lastIndexOf(span), 1);
    }
    this.#changes += 1;
  }

  #leaveOut(): void {
    const before = this.#spans.length;
    let excess = before - MAX_SPANS;
    this.#spans = this.#spans.filter(({ kind, to }) => {
      const isLeftOut = excess > 0 && to !== undefined && (kind === "tool" || kind === "note");
      excess -= isLeftOut ? 1 : 0;
      return !isLeftOut;
    });
    this.#leftOut += before - this.#spans.length;
  }
}

/** Returns the text of a span: one that waits has the reasons of now, one that has waited for its conditions those of its specification. */
export function textOf({ text, what, to, kind }: Span, task: Task): string {
  const waiting = task.status?.waiting ?? [];
  if (to === undefined && kind === "wait" && waiting.length > 0) {
    const reasons = waiting.map((one) =>
      `${word(one.reason, "WAIT_REASON_")} ${short(id(one.subject))}`.trim(),
    );
    return `${text}: ${reasons.join(", ")}`;
  }
  if (what === WAITS.created) {
    const before = (task.spec?.dependsOn ?? []).map((one) => short(one.task));
    const start = task.spec?.startTime ? ["its start"] : [];
    const all = [...before, ...start];
    return all.length > 0 ? `Waited for ${all.join(", ")}` : text;
  }
  return text;
}

type Interval = [from: number, to: number];

/** Returns how long any of some intervals lasts. */
function lengthOf(intervals: Interval[]): number {
  let [length, end] = [0, Number.NEGATIVE_INFINITY];
  for (const [from, to] of [...intervals].sort(([one], [other]) => one - other)) {
    length += Math.max(0, to - Math.max(from, end));
    end = Math.max(end, to);
  }
  return length;
}

/** Returns how long a task has spent on what, in the order in which it began with it. It does not run while it waits for a person. */
export function totalsOf(spans: readonly Span[], now: number): [what: string, millis: number][] {
  const all = new Map<string, Interval[]>();
  for (const { what, from, to } of spans) {
    if (what) {
      const intervals = all.get(what) ?? [];
      intervals.push([from, Math.max(from, to ?? now)]);
      all.set(what, intervals);
    }
  }
  const [running, asked] = [all.get("running") ?? [], all.get("a person") ?? []];
  const both = lengthOf(running) + lengthOf(asked) - lengthOf([...running, ...asked]);
  return [...all]
    .map(([what, intervals]): [string, number] => [
      what,
      lengthOf(intervals) - (what === "running" ? both : 0),
    ])
    .filter(([, millis]) => millis > 0);
}

/** Milliseconds as `250 ms`, `1.5 s`, or as in other places. */
export function lasted(millis: number): string {
  return millis < 1000
    ? `${Math.round(millis)} ms`
    : millis < 10_000
      ? `${(millis / 1000).toFixed(1)} s`
      : roughly(millis);
}

/** Returns where a span is within a whole, in percent: what is too short to be seen has a width nevertheless, by its style. */
export function placeOf({ from, to }: Span, begin: number, end: number): { left: number; width: number } {
  const whole = Math.max(1, end - begin);
  const percent = (at: number) => Math.min(100, Math.max(0, ((at - begin) / whole) * 100));
  const left = Math.min(99.5, percent(from));
  return { left, width: Math.max(0, percent(to ?? end) - left) };
}
