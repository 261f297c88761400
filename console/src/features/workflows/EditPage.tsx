import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { lazy, Suspense, useMemo, useRef, useState } from "react";
import { call, get, newKey } from "../../api/client";
import { query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Workflow, WorkflowSpec } from "../../api/types";
import { ofBase } from "../../base";
import { useMayAct } from "../../components/Acting";
import { Confirm } from "../../components/Confirm";
import { Problem } from "../../components/Problem";
import { useNamespace } from "../../namespace";
import { CheckedYaml, CheckState } from "./CheckedYaml";
import { countOfStep, shapeOf, stepsOf } from "./groups";
import { read, write } from "./manifest";
import { useChecked } from "./useChecked";
import type { Handle } from "./YamlEditor";

const BigGraph = lazy(() => import("./BigGraph"));

/** What was typed survives a page that is left or reloaded, in this tab: for each workflow that is edited by itself. */
const KEY = ofBase("rota.draft");
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
  const [problem, setProblem] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const editor = useRef<Handle>(null);
  const key = useRef(newKey());
  const checked = useChecked<WorkflowSpec>(text, namespace, {
    kind: "Workflow",
    read,
    ask: (spec, signal) => {
      const path = `namespaces/${namespace}/workflows${query({ validateOnly: "true" })}`;
      return call("POST", path, { spec }, signal);
    },
  });
  const isCurrent = checked?.text === text;
  // The picture is that of the last text that the server has accepted.
  const [drawn, setDrawn] = useState<WorkflowSpec>();
  if (checked?.spec && checked.spec !== drawn) {
    setDrawn(checked.spec);
  }
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
        <CheckState text={text} checked={checked} editor={editor} />
      </div>
      <Problem error={problem ?? (isCurrent ? checked.error : undefined)} />
      <div className="sides">
        <CheckedYaml
          editor={editor}
          text={text}
          checked={checked}
          onChange={(text) => {
            // Another text is another workflow.
            key.current = newKey();
            setText(text);
            keep(text);
          }}
        />
        {drawn && (
          <section aria-label="Picture">
            <Suspense fallback={<p role="status">Loading…</p>}>
              <Drawing spec={drawn} />
            </Suspense>
          </section>
        )}
      </div>
    </>
  );
}

/** The graph of a workflow that does not run yet: its groups are closed. */
function Drawing({ spec }: { spec: WorkflowSpec }) {
  const shape = useMemo(() => shapeOf(spec), [spec]);
  const steps = useMemo(() => stepsOf(spec), [spec]);
  return (
    <BigGraph
      shape={shape}
      stateOf={() => "waiting"}
      countOf={(name) => countOfStep(steps.get(name), undefined, undefined)}
    />
  );
}
