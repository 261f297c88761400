import { type RefObject, useRef, useState } from "react";
import { newKey } from "../../api/client";
import { type Check, type Checked, useChecked } from "./useChecked";
import type { Handle } from "./YamlEditor";

/** A specification that is typed, checked by the server, and run. */
export interface Draft<Spec> {
  text: string;
  /** Result of the last check: of this text if it is current. */
  checked: Checked<Spec> | undefined;
  isCurrent: boolean;
  /** Why the text cannot run, or why its run has failed. */
  error: unknown;
  isRunning: boolean;
  /** Whether what was typed survives when the page is left. */
  isKept: boolean;
  /** Runs the text; unset before the server has accepted it, and while it runs. */
  run: (() => void) | undefined;
  type: (text: string) => void;
  editor: RefObject<Handle | null>;
}

interface Runnable<Spec> extends Check<Spec> {
  /** Keeps what was typed for when the page is left. Returns whether it is kept. */
  keep: (text: string) => boolean;
  /** Runs a specification: once, if it is repeated with the same key. */
  run: (spec: Spec, key: string) => Promise<void>;
}

/** Begins with a text, which may be changed and run. */
export function useDraft<Spec>(
  begin: string,
  subject: string,
  { keep, run, ...check }: Runnable<Spec>,
): Draft<Spec> {
  const [text, setText] = useState(begin);
  const [failure, setFailure] = useState<unknown>();
  const [isRunning, setIsRunning] = useState(false);
  const [isKept, setIsKept] = useState(true);
  const editor = useRef<Handle>(null);
  const key = useRef(newKey());
  const checked = useChecked<Spec>(text, subject, check);
  const isCurrent = checked?.text === text;
  const spec = isCurrent && !isRunning ? checked.spec : undefined;
  const start = async (spec: Spec) => {
    setIsRunning(true);
    setFailure(undefined);
    const started = key.current;
    try {
      await run(spec, started);
    } catch (error) {
      // What was typed meanwhile has not failed.
      if (key.current === started) setFailure(error);
    }
    setIsRunning(false);
  };
  return {
    text,
    checked,
    isCurrent,
    error: failure ?? (isCurrent ? checked.error : undefined),
    isRunning,
    isKept,
    run: spec && (() => void start(spec)),
    type: (text) => {
      // Another text is another task or workflow.
      key.current = newKey();
      setFailure(undefined);
      setText(text);
      setIsKept(keep(text));
    },
    editor,
  };
}
