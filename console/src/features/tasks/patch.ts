import { parsePatch, type StructuredPatch } from "diff";
import { named } from "../../api/plain";

/** Characters of a line that are shown. */
const MAX_LINE = 2000;
const DECODER = new TextDecoder();

/** A line of a changed file, with its number before and after the change. */
export interface Line {
  kind: "added" | "removed" | "same" | "note";
  before?: number;
  after?: number;
  text: string;
}

export interface Hunk {
  header: string;
  lines: Line[];
}

export interface ChangedFile {
  path: string;
  /** What has changed besides lines. */
  notes: string[];
  hunks: Hunk[];
  added: number;
  removed: number;
}

/** Returns the files of a patch, with every character visible. Of one that was cut off, those hunks that are whole. */
export function filesOf(data: Uint8Array, isWhole: boolean): ChangedFile[] {
  let text = DECODER.decode(data);
  if (!isWhole) {
    // Lines of a hunk begin with a sign.
    text = text.slice(0, Math.max(0, text.lastIndexOf("\ndiff --git "), text.lastIndexOf("\n@@ ")) + 1);
  }
  // The library knows only the other mark of a file that is no text. No line of a hunk is like this one.
  return parsePatch(text.replaceAll("\nGIT binary patch\n", "\nBinary files differ\n"))
    .filter((one) => one.isGit)
    .map(fileOf);
}

function fileOf(one: StructuredPatch): ChangedFile {
  const [before, after] = [pathOf(one.oldFileName), pathOf(one.newFileName)];
  const notes: string[] = [];
  if (one.isCreate) {
    notes.push(one.newMode === "100755" ? "new, executable" : "new");
  } else if (one.isDelete) {
    notes.push("deleted");
  } else if (one.newMode && one.newMode !== one.oldMode) {
    notes.push(`mode ${one.oldMode} is now ${one.newMode}`);
  }
  if (one.isRename || one.isCopy) {
    notes.push(`${one.isRename ? "renamed" : "copied"} from ${before}`);
  }
  const hunks = one.hunks.map((hunk): Hunk => {
    let [old, fresh] = [hunk.oldStart, hunk.newStart];
    const lines = hunk.lines.map((line): Line => {
      const text = cut(line.slice(1));
      switch (line[0]) {
        case "+":
          return { kind: "added", after: fresh++, text };
        case "-":
          return { kind: "removed", before: old++, text };
        case "\\":
          return { kind: "note", text: text.trim() };
        default:
          return { kind: "same", before: old++, after: fresh++, text };
      }
    });
    const header = `@@ -${hunk.oldStart},${hunk.oldLines} +${hunk.newStart},${hunk.newLines} @@`;
    return { header, lines };
  });
  if (one.isBinary) {
    notes.push("binary");
  }
  const count = (kind: Line["kind"]) =>
    hunks.reduce((sum, hunk) => sum + hunk.lines.filter((line) => line.kind === kind).length, 0);
  return {
    path: one.isDelete ? before : after,
    notes,
    hunks,
    added: count("added"),
    removed: count("removed"),
  };
}

function pathOf(name: string | undefined): string {
  return named(name?.replace(/^[ab]\//, "") ?? "").replaceAll("\n", "[U+000A]");
}

function cut(line: string): string {
  const shown = named(line.slice(0, MAX_LINE));
  return line.length > MAX_LINE ? `${shown} [${line.length - MAX_LINE} more characters]` : shown;
}

/** A comment on a line of the changes. */
export interface Comment {
  path: string;
  line: Line;
  text: string;
}

/** Returns what identifies a line of a patch. */
export function keyOf(path: string, line: Line): string {
  return `${path}:${line.before ?? ""}:${line.after ?? ""}`;
}

/** Returns where a line is, in words. */
export function placeOf(path: string, line: Line): string {
  return line.after === undefined
    ? `${path}, removed line ${line.before}`
    : `${path}, ${line.kind === "added" ? "added " : ""}line ${line.after}`;
}

/** Returns the message to an agent that has some comments on its changes. */
export function messageOf(text: string, comments: Comment[]): string {
  const all = comments.map(
    (comment) =>
      `${placeOf(comment.path, comment.line)}:\n> ${comment.line.text.trim()}\n${comment.text.trim()}`,
  );
  const head = all.length > 0 ? ["Comments on what you have changed:"] : [];
  return [text.trim(), ...head, ...all].filter((part) => part !== "").join("\n\n");
}
