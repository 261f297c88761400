import { bytes, counted, id, word } from "../../api/format";
import { visible } from "../../api/plain";
import type { Event } from "../../api/types";
import { Nesting } from "./nesting";

/** One line of a log. */
export interface Line {
  /** Position of the entry of the log in which the line begins; 0 for notes of the page. */
  seq: number;
  time: string;
  kind: "stdout" | "stderr" | "message" | "tool" | "note";
  text: string;
  /** Whether the output ends here: more of it begins a new line. */
  complete: boolean;
  /** Of a tool that a subagent has called: how far it is below the agent itself. */
  depth?: number;
}

/** Characters of a line; a longer one is broken. */
export const MAX_LINE = 8 << 10;
/** Lines and characters that a page keeps; then the older tenth is left out. */
export const MAX_LINES = 50_000;
export const MAX_CHARACTERS = 16 << 20;

/** Lines of a log, in bounded memory. What is left out has a note in its place. */
export class Lines {
  readonly #lines: Line[] = [];
  #characters = 0;
  #leftOut = 0;
  /** Entries that were not read. */
  #before = 0;
  #seen = 0;
  #seq = 0;
  #attempt = 0;
  #nesting = new Nesting();
  readonly #decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };

  /** All lines, the oldest first. The array is the same after each change. */
  get all(): readonly Line[] {
    return this.#lines;
  }

  /** A part of a log begins after an entry: nothing before it is missing. */
  constructor(after = 0) {
    this.#seen = after;
  }

  /** Begins after an entry of the log. Those before it are left out, and counted in the note. */
  beginAfter(entries: number): void {
    this.#seen = entries;
    this.#before = entries;
    if (entries > 0) {
      this.#lines.unshift(this.#note());
    }
  }

  add(events: Event[]): void {
    for (const event of events) {
      this.#add(event);
    }
    if (this.#lines.length > MAX_LINES || this.#characters > MAX_CHARACTERS) {
      this.#leaveOut();
    }
  }

  #add(event: Event): void {
    const time = event.time ?? "";
    const note = (text: string) => this.#whole("note", time, text);
    const seq = Number(event.logSeq ?? 0);
    this.#seq = seq;
    if (seq > this.#seen + 1) {
      const missing = counted(seq - this.#seen - 1, "entry of the log is", "entries of the log are");
      note(`${missing} missing here`);
    }
    this.#seen = Math.max(this.#seen, seq);
    if ((event.attempt ?? 0) !== this.#attempt) {
      this.#attempt = event.attempt ?? 0;
      this.#nesting = new Nesting();
      this.#endOutput();
    }
    if (event.output) {
      const kind = event.output.stream === "OUTPUT_STREAM_STDERR" ? "stderr" : "stdout";
      const dropped = Number(event.output.droppedBytes ?? 0);
      if (dropped > 0) {
        note(`${dropped} bytes of output were left out here: the task has written too much at a time`);
      }
      // A character may begin in one chunk and end in the next.
      this.#output(kind, time, this.#decoders[kind].decode(bytes(event.output.data), { stream: true }));
    } else if (event.message) {
      this.#whole("message", time, event.message.text ?? "");
    } else if (event.toolCall) {
      const text = `${event.toolCall.tool} ${event.toolCall.inputJson ?? ""}`;
      this.#whole("tool", time, text, this.#nesting.add(event.toolCall));
    } else if (event.toolResult) {
      const depth = this.#nesting.of(event.toolResult.callId);
      this.#whole("tool", time, event.toolResult.output ?? "", depth);
    } else if (event.state) {
      const why = [event.state.reason, event.state.message].filter(Boolean).join(": ");
      const worker = event.state.worker ? ` on ${id(event.state.worker)}` : "";
      note(`${word(event.state.to, "TASK_STATE_")}${worker}${why ? ` (${why})` : ""}`);
    } else if (event.notice) {
      note(event.notice.message ?? "");
    } else if (event.progress) {
      note(`${Math.round((event.progress.fraction ?? 0) * 100)} % ${event.progress.step ?? ""}`);
    } else if (event.inputRequest) {
      note(`asks: ${visible(event.inputRequest.prompt || event.inputRequest.tool)}`);
    } else if (event.inputReceived) {
      const { text, decision } = event.inputReceived.input ?? {};
      note(`answer: ${text || word(decision, "DECISION_")}`);
    } else if (event.change) {
      note(`changed: ${(event.change.fields ?? []).join(", ")}`);
    }
  }

  /** Adds output, which continues the last line if that is of the same stream and has not ended. */
  #output(kind: "stdout" | "stderr", time: string, text: string): void {
    text.split("\n").forEach((part, index, parts) => {
      const isLast = index === parts.length - 1;
      const last = this.#lines.at(-1);
      if (index === 0 && last && !last.complete && last.kind === kind) {
        this.#lines.pop();
        this.#characters -= last.text.length;
        this.#push(kind, last.time, last.text + part, !isLast, last.seq);
      } else if (!isLast || part !== "") {
        this.#push(kind, time, part, !isLast);
      }
    });
  }

  /** Adds a text of which nothing follows. */
  #whole(kind: Line["kind"], time: string, text: string, depth = 0): void {
    for (const line of text.split("\n")) {
      this.#push(kind, time, line, true, this.#seq, depth);
    }
  }

  #push(kind: Line["kind"], time: string, text: string, complete: boolean, seq = this.#seq, depth = 0): void {
    const place = depth > 0 ? { depth } : {};
    let rest = text;
    while (rest.length > MAX_LINE) {
      // Not within a character of two units.
      const end = MAX_LINE - (/[\ud800-\udbff]/.test(rest[MAX_LINE - 1] ?? "") ? 1 : 0);
      this.#lines.push({ seq, time, kind, text: rest.slice(0, end), complete: true, ...place });
      rest = rest.slice(end);
    }
    this.#lines.push({ seq, time, kind, text: rest, complete, ...place });
    this.#characters += text.length;
  }

  /** Another attempt begins with lines and characters of its own. */
  #endOutput(): void {
    for (const kind of ["stdout", "stderr"] as const) {
      this.#output(kind, "", this.#decoders[kind].decode());
    }
    const last = this.#lines.at(-1);
    if (last) {
      last.complete = true;
    }
  }

  #leaveOut(): void {
    let count = this.#leftOut > 0 || this.#before > 0 ? 1 : 0;
    const isNote = count;
    while (this.#lines.length - count > MAX_LINES * 0.9 || this.#characters > MAX_CHARACTERS * 0.9) {
      this.#characters -= this.#lines[count]?.text.length ?? 0;
      count += 1;
    }
    this.#leftOut += count - isNote;
    this.#lines.splice(0, count, this.#note());
  }

  /** Returns what stands for all that is left out at the beginning. */
  #note(): Line {
    const [entries, lines] = [`${this.#before} earlier entries`, `${this.#leftOut} earlier lines`];
    const parts = this.#before === 0 ? lines : this.#leftOut === 0 ? entries : `${entries} and ${lines}`;
    const text = `${parts} are left out here: rota logs prints all of them`;
    return { seq: 0, time: "", kind: "note", text, complete: true };
  }
}

/** Returns the index of the line in which an entry of the log ends, or begins if it has several: the last one with the text, if there is one. */
export function lineOf(lines: readonly Line[], seq: number, text = ""): number {
  const needle = text.toLowerCase();
  // The lines of an entry are together, and a line that it ends begins before it.
  let last = lines.findLastIndex((line) => line.seq > 0 && line.seq <= seq);
  if (last < 0 || !needle) {
    const first = lines.findIndex((line) => line.seq === seq);
    return first < 0 ? last : first;
  }
  const lowest = Math.max(0, last - MAX_LINES_OF_AN_ENTRY);
  for (let index = last; index >= lowest; index -= 1) {
    if (lines[index]?.text.toLowerCase().includes(needle)) {
      last = index;
      break;
    }
  }
  return last;
}

/** Whether these lines have the place of an entry, and of the line of it with a text: a page may have left out a part of the entry. */
export function hasPlace(lines: readonly Line[], seq: number, text = ""): boolean {
  const index = lineOf(lines, seq, text);
  const line = lines[index];
  if (!line) {
    return false;
  }
  // Only the note about what is left out belongs to no entry.
  return text ? line.text.toLowerCase().includes(text.toLowerCase()) : lines[index - 1]?.seq !== 0;
}

/** Lines among which a text is looked for: an entry has at most 64 KiB. */
const MAX_LINES_OF_AN_ENTRY = 65_536;
