import { isMap, LineCounter, parseDocument, stringify } from "yaml";
import type { WorkflowSpec } from "../../api/types";

/** A specification as it was typed, or where it cannot be read. */
export interface Typed<Spec> {
  spec?: Spec;
  /** Why it cannot be read. */
  error?: string;
  /** Line of the error, from 1. */
  line?: number;
}

/** Characters that are accepted: more are no specification of a person. */
export const LONGEST = 1 << 20;

/** Reads the specification of a workflow. */
export function read(text: string): Typed<WorkflowSpec> {
  return readAs<WorkflowSpec>(text, "Workflow", "steps");
}

/** Reads YAML: a specification of the API, or a manifest, whose `spec` is one. Aliases are bounded by the library. */
export function readAs<Spec>(text: string, kind: string, field: string): Typed<Spec> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error) {
    return { error: error.message, line: lines.linePos(error.pos[0]).line };
  }
  if (!isMap(document.contents)) {
    return { error: `the text has no fields such as \`${field}\``, line: 1 };
  }
  try {
    const fields = document.toJS();
    return { spec: fields.kind === kind && fields.spec ? fields.spec : fields };
  } catch (why) {
    return { error: why instanceof Error ? why.message : String(why), line: 1 };
  }
}

/** Returns a specification as YAML. */
export function write(spec: object): string {
  return stringify(spec, { lineWidth: 0 });
}

/** Returns the line of a field that the server names, such as `workflow.spec.steps[2].task.prompt`; of the nearest one around it. */
export function lineOfField(text: string, field: string, kind: string): number | undefined {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const path = field
    .replace(`${kind.toLowerCase()}.`, "")
    .replace(/^spec\./, "")
    .split(/[.[\]]+/)
    .filter(Boolean)
    // Fields of the API have underscores in errors, and none in JSON.
    .map((key) =>
      /^[0-9]+$/.test(key) ? Number(key) : key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()),
    );
  const whole = document.has("spec") && document.get("kind") === kind ? ["spec", ...path] : path;
  for (let length = whole.length; length > 0; length -= 1) {
    const node = document.getIn(whole.slice(0, length), true);
    const range = (node as { range?: [number, number, number] } | undefined)?.range;
    if (range) {
      return lines.linePos(range[0]).line;
    }
  }
  return undefined;
}
