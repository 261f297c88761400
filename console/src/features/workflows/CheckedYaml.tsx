import { type ReactNode, useId } from "react";
import { lazyPart } from "../../components/lazy";
import { Problem } from "../../components/Problem";
import { hasSecrets } from "../../drafts";
import type { Draft } from "./useDraft";

const YamlEditor = lazyPart(() => import("./YamlEditor"));

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What can be done with a specification, whether it is checked, and what is wrong with it. */
export function CheckedBar({
  draft: { text, checked, isCurrent, error, isKept, run, editor },
  label,
  children,
}: {
  draft: Draft<unknown>;
  /** Label of its run; unset for those who may not run it. */
  label: string | undefined;
  children: ReactNode;
}) {
  return (
    <>
      <div className="bar">
        {label && (
          <button type="button" className="primary" disabled={!run} onClick={run}>
            {label}
          </button>
        )}
        {children}
        <span role="status" className="quiet">
          {!isCurrent && "Checking…"}
          {isCurrent && checked?.error === undefined && "The server accepts it."}
        </span>
        {isCurrent && checked?.line !== undefined && (
          <button type="button" onClick={() => editor.current?.show(checked.line ?? 1)}>
            Line {checked.line}
          </button>
        )}
      </div>
      {!isKept && (
        <p role="alert" className="problem">
          {hasSecrets(text)
            ? "A text with secrets is not kept: it is lost when you leave the page."
            : "The browser has no room to keep what you have typed since: it is lost when you leave the page."}
        </p>
      )}
      <Problem error={error} />
    </>
  );
}

/** A specification in an editor, in which what is wrong is marked. It is loaded later than its page. */
export function CheckedYaml({ draft: { text, checked, type, editor } }: { draft: Draft<unknown> }) {
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
      <YamlEditor
        ref={editor}
        text={text}
        wrong={wrong}
        labelledBy={label}
        describedBy={hint}
        onChange={type}
      />
    </div>
  );
}
