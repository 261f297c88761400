import { id, text, word } from "../../api/format";
import type { Event } from "../../api/types";

/** One line of a log. */
export interface Line {
  seq: string;
  time: string;
  kind: "stdout" | "stderr" | "message" | "tool" | "note";
  text: string;
  /** Whether the output ends here: more of it begins a new line. */
  complete: boolean;
}

/** Lines that a page keeps: the older ones are in the command line's log. */
const MOST = 50_000;

/** Returns the lines with those of further events. */
export function linesOf(before: Line[], events: Event[]): Line[] {
  const lines = before.slice();
  for (const event of events) {
    add(lines, event);
  }
  return lines.length > MOST ? lines.slice(-MOST) : lines;
}

function add(lines: Line[], event: Event): void {
  const line = (kind: Line["kind"], text: string) => {
    for (const one of text.split("\n")) {
      lines.push({ seq: event.logSeq ?? "", time: event.time ?? "", kind, text: one, complete: true });
    }
  };
  if (event.output) {
    const kind = event.output.stream === "OUTPUT_STREAM_STDERR" ? "stderr" : "stdout";
    const parts = text(event.output.data).split("\n");
    const last = lines.at(-1);
    if (last && !last.complete && last.kind === kind) {
      lines[lines.length - 1] = { ...last, text: last.text + (parts[0] ?? ""), complete: parts.length > 1 };
      parts.shift();
    }
    parts.forEach((part, index) => {
      const isLast = index === parts.length - 1;
      if (!isLast || part !== "") {
        lines.push({ seq: event.logSeq ?? "", time: event.time ?? "", kind, text: part, complete: !isLast });
      }
    });
  } else if (event.message) {
    line("message", event.message.text ?? "");
  } else if (event.toolCall) {
    line("tool", `${event.toolCall.tool} ${event.toolCall.inputJson ?? ""}`);
  } else if (event.toolResult) {
    line("tool", event.toolResult.output ?? "");
  } else if (event.state) {
    const why = [event.state.reason, event.state.message].filter(Boolean).join(": ");
    const worker = event.state.worker ? ` on ${id(event.state.worker)}` : "";
    line("note", `${word(event.state.to, "TASK_STATE_")}${worker}${why ? ` (${why})` : ""}`);
  } else if (event.notice) {
    line("note", event.notice.message ?? "");
  } else if (event.progress) {
    line("note", `${Math.round((event.progress.fraction ?? 0) * 100)} % ${event.progress.step ?? ""}`);
  } else if (event.inputRequest) {
    line("note", `asks: ${event.inputRequest.prompt ?? event.inputRequest.tool ?? ""}`);
  } else if (event.inputReceived) {
    line(
      "note",
      `answer: ${event.inputReceived.input?.text || word(event.inputReceived.input?.decision, "DECISION_")}`,
    );
  } else if (event.change) {
    line("note", `changed: ${(event.change.fields ?? []).join(", ")}`);
  }
}
