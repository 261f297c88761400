import { lazy, type RefObject, Suspense, useId } from "react";
import type { Checked } from "./useChecked";
import type { Handle } from "./YamlEditor";

const YamlEditor = lazy(() => import("./YamlEditor"));

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether a text is checked, and the line of what is wrong with it. */
export function CheckState({
  text,
  checked,
  editor,
}: {
  text: string;
  checked: Checked<unknown> | undefined;
  editor: RefObject<Handle | null>;
}) {
  const isCurrent = checked?.text === text;
  return (
    <>
      <span role="status" className="quiet">
        {!isCurrent && "Checking…"}
        {isCurrent && checked.error === undefined && "The server accepts it."}
      </span>
      {isCurrent && checked.line !== undefined && (
        <button type="button" onClick={() => editor.current?.show(checked.line ?? 1)}>
          Line {checked.line}
        </button>
      )}
    </>
  );
}

/** A specification in an editor, in which what is wrong is marked. It is loaded later than its page. */
export function CheckedYaml({
  text,
  checked,
  onChange,
  editor,
}: {
  text: string;
  checked: Checked<unknown> | undefined;
  onChange: (text: string) => void;
  editor: RefObject<Handle | null>;
}) {
  const [label, hint] = [useId(), useId()];
  // While the server checks what was typed since, the problem stays where it was.
  const wrong =
    checked?.error === undefined ? undefined : { line: checked.line ?? 0, message: messageOf(checked.error) };
  return (
    <div>
      <span id={label}>Specification, in YAML</span>{" "}
      <span id={hint} className="quiet">
        Tab indents; Escape, then Tab leaves the text.
      </span>
      <Suspense fallback={<p role="status">Loading…</p>}>
        <YamlEditor
          ref={editor}
          text={text}
          wrong={wrong}
          labelledBy={label}
          describedBy={hint}
          onChange={onChange}
        />
      </Suspense>
    </div>
  );
}
