/** Blanks in a row that are shown as they are. More could push text out of sight. */
const MAX_BLANKS = 16;
/** The same of lines without text. */
const MAX_EMPTY_LINES = 3;

/** Controls, and characters that change the direction of text or cannot be seen. Joiners of emoji and scripts are harmless. */
const UNSEEN = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Returns a text with the characters that are not seen named, and everything else as it is. */
export function named(text: string): string {
  return text.replace(
    UNSEEN,
    (one) => `[U+${(one.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}]`,
  );
}

/**
 * Returns a text of an agent in a form that hides nothing: who approves something must see all of it, in its order. Characters
 * that are not seen are named, long runs of blanks are counted.
 */
export function visible(text: string | undefined): string {
  return withoutGaps(named((text ?? "").replaceAll("\r\n", "\n"))).replace(/[^\S\n]{17,}/g, (run) =>
    run.length > MAX_BLANKS ? ` [${run.length} blanks] ` : run,
  );
}

/** Counts long runs of empty lines. Looks at each character once: a regular expression would do so for each start of a run. */
function withoutGaps(text: string): string {
  const lines = text.split("\n");
  const shown: string[] = [];
  for (let index = 0; index < lines.length; ) {
    let next = index;
    while (next < lines.length && lines[next]?.trim() === "") {
      next += 1;
    }
    if (next - index > MAX_EMPTY_LINES) {
      shown.push(`[${next - index} empty lines]`);
    } else {
      next = Math.max(next, index + 1);
      shown.push(...lines.slice(index, next));
    }
    index = next;
  }
  return shown.join("\n");
}

/** The same for a text of one line. */
export function visibleLine(text: string | undefined): string {
  return visible((text ?? "").replaceAll("\n", " "));
}

/** Fields of a tool's input that decide what it does; they come first. */
const FIRST = ["command", "file_path", "notebook_path", "path", "url", "query"];

/** Returns the fields of a tool's input, the deciding ones first; `null` if it is no JSON object. */
export function fieldsOf(inputJson: string): [name: string, text: string][] | null {
  let input: unknown;
  try {
    input = JSON.parse(inputJson);
  } catch {
    // Cut by its worker, or from another one.
    return null;
  }
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    return null;
  }
  const rank = (name: string) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return Object.entries(input)
    .map(([name, value]): [string, string] => [
      name,
      typeof value === "string" ? value : JSON.stringify(value),
    ])
    .sort(([one], [other]) => rank(one) - rank(other));
}
