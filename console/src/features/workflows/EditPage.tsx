import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { type ComponentType, useMemo, useState } from "react";
import { call, get } from "../../api/client";
import { placeOf, query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Workflow, WorkflowSpec } from "../../api/types";
import { useMayAct } from "../../components/Acting";
import { Confirm } from "../../components/Confirm";
import { Heading } from "../../components/Heading";
import { Unread } from "../../components/Unread";
import { useLoaded } from "../../components/useLoaded";
import { keepDraft, keptDraft } from "../../drafts";
import { useNamespace } from "../../namespace";
import { CheckedBar, CheckedYaml } from "./CheckedYaml";
import { countOfStep, type Picture, shapeOf, stepsOf } from "./groups";
import { read, write } from "./manifest";
import { loadBigGraph } from "./pictures";
import { useDraft } from "./useDraft";

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
  const [draft, setDraft] = useState(() => keptDraft(from));
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
    return <Unread title="New workflow" error={source.error} />;
  }
  const keep = (text: string | undefined) => keepDraft(from, text === original ? undefined : text);
  const discard = async () => {
    keep(undefined);
    setDraft(null);
  };
  return (
    <Editor
      key={draft === null ? "original" : "draft"}
      // A workflow that is made from another one runs where that one did.
      namespace={placeOf(from).namespace || shown}
      begin={begin}
      keep={keep}
      discard={draft === null ? undefined : discard}
    />
  );
}

interface Props {
  namespace: string;
  begin: string;
  /** Keeps what was typed, or nothing of it. Returns whether it is kept. */
  keep: (text: string | undefined) => boolean;
  /** Begins again without the draft, if it has begun with one. */
  discard: (() => Promise<void>) | undefined;
}

function Editor({ namespace, begin, keep, discard }: Props) {
  const navigate = useNavigate();
  const mayAct = useMayAct();
  const draft = useDraft<WorkflowSpec>(begin, namespace, {
    kind: "Workflow",
    read,
    keep,
    ask: (spec, signal) => {
      const path = `namespaces/${namespace}/workflows${query({ validateOnly: "true" })}`;
      return call("POST", path, { spec }, signal);
    },
    run: async (spec, idempotencyKey) => {
      const path = `namespaces/${namespace}/workflows${query({ idempotencyKey })}`;
      const { name } = await call<Workflow>("POST", path, { spec });
      keep(undefined);
      await navigate({ to: "/workflows/$namespace/$id", params: placeOf(name) });
    },
  });
  // The picture is that of the last text that the server has accepted.
  const [drawn, setDrawn] = useState<WorkflowSpec>();
  const BigGraph = useLoaded<Picture>(loadBigGraph);
  const accepted = draft.checked?.spec;
  if (accepted && accepted !== drawn) {
    setDrawn(accepted);
  }
  return (
    <>
      <Heading what="New workflow" which={visibleLine(namespace)}>
        New workflow in {visibleLine(namespace)}
      </Heading>
      <CheckedBar draft={draft} label={mayAct ? "Run" : undefined}>
        {discard && (
          <Confirm
            label="Discard the draft"
            question="Discard what was typed, and begin again?"
            onConfirm={discard}
          />
        )}
      </CheckedBar>
      <div className="sides">
        <CheckedYaml draft={draft} />
        {drawn && BigGraph && (
          <section aria-label="Picture">
            <Drawing spec={drawn} BigGraph={BigGraph} />
          </section>
        )}
      </div>
    </>
  );
}

/** The graph of a workflow that does not run yet: its groups are closed. */
function Drawing({ spec, BigGraph }: { spec: WorkflowSpec; BigGraph: ComponentType<Picture> }) {
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
