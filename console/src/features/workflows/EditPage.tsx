import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useId, useRef, useState } from "react";
import { ApiError, call, get, newKey } from "../../api/client";
import { query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { StepStatus, Workflow, WorkflowSpec } from "../../api/types";
import { ofBase } from "../../base";
import { useMayAct } from "../../components/Acting";
import { Confirm } from "../../components/Confirm";
import { Problem } from "../../components/Problem";
import { useNamespace } from "../../namespace";
import { lineOfField, read, write } from "./manifest";
import type { Handle } from "./YamlEditor";

const BigGraph = lazy(() => import("./BigGraph"));
const YamlEditor = lazy(() => import("./YamlEditor"));

/** Time without a key after which the server checks what was typed, in milliseconds. */
const PAUSE = 500;
/** What was typed survives a page that is left or reloaded, in this tab: for each workflow that is edited by itself. */
const KEY = ofBase("rota.draft");
const NO_STEPS: ReadonlyMap<string, StepStatus> = new Map();
const EXAMPLE = `title: An example
steps:
  - name: build
    task:
      target: {agent: shell}
      runtime: {command: {shell: "echo built"}}
  - name: approve
    needs: [{step: build}]
    approval: {prompt: Is it good?}
`;

/** Answer of the server about a text. */
interface Checked {
  text: string;
  error?: unknown;
  line?: number | undefined;
  spec?: WorkflowSpec;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Returns the line of the field that an error names. */
function lineOf(text: string, error: unknown): number | undefined {
  const message = error instanceof ApiError ? `${error.message} ${error.hint}` : "";
  const [field] = /\bworkflow\.[\w.[\]]+/.exec(message) ?? [];
  return field === undefined ? undefined : lineOfField(text, field);
}

/** A workflow as YAML with its graph, checked by the server while it is typed. */
export function EditPage() {
  const { from } = useSearch({ from: "/workflows/new" });
  return <Source key={from} from={from} />;
}

/** What is typed begins with the draft that this tab has of it, or with the workflow that it is made from. */
function Source({ from }: { from: string | undefined }) {
  const shown = useNamespace();
  const key = from === undefined ? KEY : `${KEY}.${from}`;
  const [draft, setDraft] = useState(() => sessionStorage.getItem(key));
  const source = useQuery({
    queryKey: ["source of a workflow", from],
    queryFn: ({ signal }) => get<Workflow>(from ?? "", signal),
    enabled: from !== undefined && draft === null,
    // Read once: what is typed must not go away with a later answer.
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
  });
  const original = from === undefined ? EXAMPLE : source.data && write(source.data.spec ?? {});
  const begin = draft ?? original;
  if (begin === undefined) {
    return source.error ? <Problem error={source.error} /> : <p role="status">Loading…</p>;
  }
  const keep = (text: string | undefined) => {
    if (text === undefined || text === original) {
      sessionStorage.removeItem(key);
    } else {
      sessionStorage.setItem(key, text);
    }
  };
  const discard = async () => {
    keep(undefined);
    setDraft(null);
  };
  return (
    <Editor
      key={draft === null ? "original" : "draft"}
      // A workflow that is made from another one runs where that one did.
      namespace={from?.split("/")[1] ?? shown}
      begin={begin}
      keep={keep}
      discard={draft === null ? undefined : discard}
    />
  );
}

interface Props {
  namespace: string;
  begin: string;
  /** Keeps what was typed, or nothing of it. */
  keep: (text: string | undefined) => void;
  /** Begins again without the draft, if it has begun with one. */
  discard: (() => Promise<void>) | undefined;
}

function Editor({ namespace, begin, keep, discard }: Props) {
  const navigate = useNavigate();
  const mayAct = useMayAct();
  const [text, setText] = useState(begin);
  const [checked, setChecked] = useState<Checked>();
  const [drawn, setDrawn] = useState<WorkflowSpec>();
  const [problem, setProblem] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const editor = useRef<Handle>(null);
  const [label, hint] = [useId(), useId()];
  const key = useRef(newKey());
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      const { spec, error, line } = read(text);
      if (!spec) {
        setChecked({ text, error: new Error(error), line });
        return;
      }
      try {
        const path = `namespaces/${namespace}/workflows${query({ validateOnly: "true" })}`;
        await call("POST", path, { spec }, abort.signal);
        setChecked({ text, spec });
        setDrawn(spec);
      } catch (error) {
        if (!abort.signal.aborted) {
          setChecked({ text, error, line: lineOf(text, error) });
        }
      }
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text, namespace]);
  const isCurrent = checked?.text === text;
  // While the server checks what was typed since, the problem stays where it was.
  const wrong =
    checked?.error === undefined ? undefined : { line: checked.line ?? 0, message: messageOf(checked.error) };
  const run = async () => {
    if (!isCurrent || !checked?.spec) {
      return;
    }
    setBusy(true);
    setProblem(undefined);
    try {
      const path = `namespaces/${namespace}/workflows${query({ idempotencyKey: key.current })}`;
      const { name } = await call<Workflow>("POST", path, { spec: checked.spec });
      keep(undefined);
      const [, , , id = ""] = name?.split("/") ?? [];
      await navigate({ to: "/workflows/$namespace/$id", params: { namespace, id } });
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  return (
    <>
      <h1>New workflow in {visibleLine(namespace)}</h1>
      <div className="bar">
        {mayAct && (
          <button
            type="button"
            className="primary"
            disabled={busy || !isCurrent || !checked?.spec}
            onClick={() => void run()}
          >
            Run
          </button>
        )}
        {discard && (
          <Confirm
            label="Discard the draft"
            question="Discard what was typed, and begin again?"
            onConfirm={discard}
          />
        )}
        <span role="status" className="quiet">
          {!isCurrent && "Checking…"}
          {isCurrent && checked.spec && "The server accepts it."}
        </span>
        {isCurrent && checked.line !== undefined && (
          <button type="button" onClick={() => editor.current?.show(checked.line ?? 1)}>
            Line {checked.line}
          </button>
        )}
      </div>
      <Problem error={problem ?? (isCurrent ? checked.error : undefined)} />
      <div className="sides">
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
              onChange={(text) => {
                // Another text is another workflow.
                key.current = newKey();
                setText(text);
                keep(text);
              }}
            />
          </Suspense>
        </div>
        {drawn && (
          <section aria-label="Picture">
            <Suspense fallback={<p role="status">Loading…</p>}>
              <BigGraph spec={drawn} steps={NO_STEPS} />
            </Suspense>
          </section>
        )}
      </div>
    </>
  );
}
