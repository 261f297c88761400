import { word } from "../api/format";

const SIGNS: Record<string, string> = {
  succeeded: "✓",
  failed: "✗",
  cancelled: "–",
  skipped: "–",
  running: "▶",
  "input required": "?",
};

/** A state in words and with a sign: colour is only in addition. */
export function State({ value, prefix }: { value: string | undefined; prefix: string }) {
  const state = word(value, prefix);
  return (
    <span className={`state ${state.replaceAll(" ", "-")}`}>
      <span aria-hidden="true">{SIGNS[state] ?? "·"}</span> {state}
    </span>
  );
}
