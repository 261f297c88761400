import { useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import { lineOfField, type Typed } from "./manifest";

/** Time without a key after which the server checks what was typed, in milliseconds. */
const PAUSE = 500;

/** What is known of a text. */
export interface Checked<Spec> {
  text: string;
  error?: unknown;
  line?: number | undefined;
  spec?: Spec;
}

/** How a text is read, and how the server checks it. */
export interface Check<Spec> {
  /** Kind of manifests, whose lower-case form begins the fields that the server names. */
  kind: string;
  read: (text: string) => Typed<Spec>;
  /** A dry run: fails with what is wrong. */
  ask: (spec: Spec, signal: AbortSignal) => Promise<unknown>;
}

/** Returns the line of the field that an error names. */
export function lineOfError(text: string, kind: string, error: unknown): number | undefined {
  const message = error instanceof ApiError ? `${error.message} ${error.hint}` : "";
  const [field] = new RegExp(`\\b${kind.toLowerCase()}\\.[\\w.[\\]]+`).exec(message) ?? [];
  return field === undefined ? undefined : lineOfField(text, field, kind);
}

/** Reads a text, and has the server check it. */
export async function checkOf<Spec>(
  text: string,
  { kind, read, ask }: Check<Spec>,
  signal: AbortSignal,
): Promise<Checked<Spec>> {
  const { spec, error, line } = read(text);
  if (!spec) {
    return { text, error: new Error(error), line };
  }
  try {
    await ask(spec, signal);
    return { text, spec };
  } catch (error) {
    return { text, error, line: lineOfError(text, kind, error) };
  }
}

/** Has a text checked after each pause of typing, and again when its subject is another one. */
export function useChecked<Spec>(
  text: string,
  subject: string,
  check: Check<Spec>,
): Checked<Spec> | undefined {
  const [checked, setChecked] = useState<Checked<Spec>>();
  const latest = useRef(check);
  latest.current = check;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the check is another one only with its subject
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      const found = await checkOf(text, latest.current, abort.signal);
      if (!abort.signal.aborted) {
        setChecked(found);
      }
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text, subject]);
  return checked;
}
