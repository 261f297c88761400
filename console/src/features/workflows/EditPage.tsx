import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useRef, useState } from "react";
import { ApiError, call, get, newKey } from "../../api/client";
import { query } from "../../api/format";
import type { StepStatus, Workflow, WorkflowSpec } from "../../api/types";
import { useMayAct } from "../../components/Acting";
import { Problem } from "../../components/Problem";
import { useNamespace } from "../../namespace";
import { LONGEST, lineOfField, read, write } from "./manifest";

const BigGraph = lazy(() => import("./BigGraph"));

/** Time without a key after which the server checks what was typed, in milliseconds. */
const PAUSE = 500;
/** What was typed survives a page that is left or reloaded, in this tab. */
const KEY = "rota.draft";
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

/** Returns the line of the field that an error names. */
function lineOf(text: string, error: unknown): number | undefined {
  const message = error instanceof ApiError ? `${error.message} ${error.hint}` : "";
  const [field] = /\bworkflow\.[\w.[\]]+/.exec(message) ?? [];
  return field === undefined ? undefined : lineOfField(text, field);
}

/** A workflow as YAML with its graph, checked by the server while it is typed. */
export function EditPage() {
  const { from } = useSearch({ from: "/workflows/new" });
  const source = useQuery({
    queryKey: ["workflow", from],
    queryFn: ({ signal }) => get<Workflow>(from ?? "", signal),
    enabled: from !== undefined,
  });
  if (source.error) {
    return <Problem error={source.error} />;
  }
  if (from && !source.data) {
    return <p role="status">Loading…</p>;
  }
  const begin = source.data?.spec ? write(source.data.spec) : (sessionStorage.getItem(KEY) ?? EXAMPLE);
  return <Editor key={from} begin={begin} />;
}

function Editor({ begin }: { begin: string }) {
  const namespace = useNamespace();
  const navigate = useNavigate();
  const mayAct = useMayAct();
  const [text, setText] = useState(begin);
  const [checked, setChecked] = useState<Checked>();
  const [drawn, setDrawn] = useState<WorkflowSpec>();
  const [problem, setProblem] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const area = useRef<HTMLTextAreaElement>(null);
  const key = useRef(newKey());
  useEffect(() => {
    sessionStorage.setItem(KEY, text);
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
  const show = (line: number) => {
    const start = text.split("\n", line - 1).reduce((length, one) => length + one.length + 1, 0);
    const end = text.indexOf("\n", start);
    area.current?.focus();
    area.current?.setSelectionRange(start, end < 0 ? text.length : end);
  };
  const run = async () => {
    if (!isCurrent || !checked?.spec) {
      return;
    }
    setBusy(true);
    setProblem(undefined);
    try {
      const path = `namespaces/${namespace}/workflows${query({ idempotencyKey: key.current })}`;
      const { name } = await call<Workflow>("POST", path, { spec: checked.spec });
      sessionStorage.removeItem(KEY);
      const [, , , id = ""] = name?.split("/") ?? [];
      await navigate({ to: "/workflows/$namespace/$id", params: { namespace, id } });
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  return (
    <>
      <h1>New workflow</h1>
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
        <span role="status" className="quiet">
          {!isCurrent && "Checking…"}
          {isCurrent && checked.spec && "The server accepts it."}
        </span>
        {isCurrent && checked.line !== undefined && (
          <button type="button" onClick={() => show(checked.line ?? 1)}>
            Line {checked.line}
          </button>
        )}
      </div>
      <Problem error={problem ?? (isCurrent ? checked.error : undefined)} />
      <div className="sides">
        <label className="source">
          Specification, in YAML
          <textarea
            ref={area}
            value={text}
            maxLength={LONGEST}
            spellCheck={false}
            aria-invalid={isCurrent && checked.error !== undefined}
            onChange={(event) => {
              // Another text is another workflow.
              key.current = newKey();
              setText(event.target.value);
            }}
          />
        </label>
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
