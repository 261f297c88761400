import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useEffect, useMemo, useRef, useState } from "react";
import { ActionKeys } from "../../api/actionKeys";
import { get, post } from "../../api/client";
import { id, isName, placeOf, word } from "../../api/format";
import { visible, visibleLine } from "../../api/plain";
import type { StepStatus, WatchWorkflowResponse, Workflow } from "../../api/types";
import { troubleOf, useStream } from "../../api/useStream";
import { Acting, useMayAct } from "../../components/Acting";
import { Age } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Heading } from "../../components/Heading";
import { Problem } from "../../components/Problem";
import { State } from "../../components/State";
import { hidden, Table } from "../../components/Table";
import { Unread } from "../../components/Unread";
import { UnusedReplies } from "../../components/UnusedReplies";
import { useLoaded } from "../../components/useLoaded";
import { useUnused } from "../../components/useReply";
import { isApproval } from "./approvals";
import { APPROVAL, COMPENSATION, Decision } from "./Decision";
import { isGroup, openIn, type Picture, type Step, stepsOf, toggled } from "./groups";
import { nameOf } from "./name";
import { loaderOf } from "./pictures";
import { useGroups } from "./useGroups";
import { Within } from "./Within";

/** Steps that the table has at first, and more with each click. */
const ROWS = 200;
/** Time for which the rest of the page waits for the graph, in milliseconds. */
const GRAPH_TIMEOUT = 5000;
const ENDED = /SUCCEEDED|FAILED|CANCELLED/;

export function WorkflowPage() {
  const { namespace, id: workflow } = useParams({ from: "/workflows/$namespace/$id" });
  if (!isName(namespace) || !isName(workflow)) {
    return <Unread title="Workflow" error={new Error("The address names no workflow.")} />;
  }
  return (
    <OneWorkflow key={`${namespace}/${workflow}`} name={`namespaces/${namespace}/workflows/${workflow}`} />
  );
}

/** One workflow: its steps as a table that follows the run, with decisions in place. */
function OneWorkflow({ name }: { name: string }) {
  const [workflow, setWorkflow] = useState<Workflow>();
  const [steps, setSteps] = useState<ReadonlyMap<string, StepStatus>>(new Map());
  const [problem, setProblem] = useState<unknown>();
  const [unused, onUnused, forget] = useUnused();
  const [rows, setRows] = useState(ROWS);
  const [wanted, setWanted] = useState("");
  // The stream ends with the workflow, which continues when a failed compensation is resolved.
  const [resolved, setResolved] = useState(0);
  const received = useRef<StepStatus[]>([]);
  const frame = useRef(0);
  const navigate = useNavigate();
  const [keys] = useState(() => new ActionKeys());
  const mayAct = useMayAct();
  const state = workflow?.status?.state ?? "";
  const link = useStream<WatchWorkflowResponse>(
    `${name} ${resolved}`,
    () => `${name}:watch`,
    (message) => {
      if (message.workflow) {
        setWorkflow(message.workflow);
      }
      received.current.push(...(message.steps ?? []));
      // Shown once per frame, however many messages arrive.
      frame.current ||= requestAnimationFrame(() => {
        frame.current = 0;
        const changed = received.current.splice(0).map((step) => [step.name ?? "", step] as const);
        if (changed.length > 0) {
          setSteps((steps) => new Map([...steps, ...changed]));
        }
      });
    },
  );
  const spec = useQuery({
    queryKey: ["workflow", name],
    queryFn: ({ signal }) => get<Workflow>(name, signal),
  });
  const known = useMemo(() => stepsOf(spec.data?.spec), [spec.data]);
  const search = useSearch({ from: "/workflows/$namespace/$id" });
  const open = useMemo(() => openIn(search.open), [search.open]);
  const isEnded = ENDED.test(state);
  const [groups, groupsProblem] = useGroups({
    name,
    workflow: spec.data,
    steps,
    open,
    toggle: (path) =>
      void navigate({ to: ".", search: { open: toggled(open, path) }, replace: true, resetScroll: false }),
    isEnded,
  });
  const load = loaderOf(groups.shape);
  const Graph = useLoaded<Picture>(load);
  // Shown in one piece: a graph that comes later moves the buttons below it, also between press and release of a click, which is lost.
  const [isWhole, setIsWhole] = useState(false);
  if (!isWhole && (load ? Graph : spec.isSuccess || spec.failureCount > 0)) {
    setIsWhole(true);
  }
  // Decisions do not wait for a call or a file that stalls.
  useEffect(() => {
    const timer = setTimeout(() => setIsWhole(true), GRAPH_TIMEOUT);
    return () => clearTimeout(timer);
  }, []);
  const { refetch } = spec;
  const isRead = spec.isSuccess;
  // Steps may be added while it runs. Each of them is asked for once.
  // biome-ignore lint/correctness/useExhaustiveDependencies: not again for a step that the answer lacks
  useEffect(() => {
    if (isRead && [...steps.keys()].some((step) => !known.has(step))) {
      void refetch();
    }
  }, [isRead, steps.size, refetch]);
  const act = async <T,>(verb: string, body: unknown = {}): Promise<T> => {
    setProblem(undefined);
    try {
      return await post<T>(`${name}:${verb}`, body);
    } catch (error) {
      setProblem(error);
      throw error;
    }
  };
  const quietly = (verb: string, body?: unknown) => void act(verb, body).catch(() => {});
  const rerun = async (from: { reuseResults?: boolean; steps?: string[] } = {}) => {
    const next = await keys.during(JSON.stringify(from), (idempotencyKey) =>
      act<Workflow>("rerun", { idempotencyKey, ...from }),
    );
    await navigate({ to: "/workflows/$namespace/$id", params: placeOf(next.name) });
  };
  if (!workflow || !isWhole) {
    return <Unread title="Workflow" error={link.error} />;
  }
  const sorted = [...steps.values()].sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
  const matching = wanted
    ? sorted.filter(({ name, state }) =>
        `${name} ${word(state, "STEP_STATE_")}`.toLowerCase().includes(wanted.toLowerCase()),
      )
    : sorted;
  return (
    <>
      <Heading what="Workflow" which={nameOf(workflow)} />
      <div className="bar">
        <State value={state} prefix="WORKFLOW_STATE_" />
        {workflow.status?.paused && <span>paused</span>}
        {!ENDED.test(state) && (
          <>
            <Acting>
              {workflow.status?.paused ? (
                <button type="button" onClick={() => quietly("resume")}>
                  Resume
                </button>
              ) : (
                <button type="button" onClick={() => quietly("pause")}>
                  Pause
                </button>
              )}
            </Acting>
            {workflow.status?.cancelled ? (
              // With keys of their own: an open question is about its own button alone.
              <Confirm
                key="finally"
                label="Cancel finally-steps"
                question="End the finally-steps of this workflow that run, and start no further one? What they would clean up stays as it is."
                onConfirm={() => act("cancel", { reason: "by a person", alsoFinally: true })}
              />
            ) : (
              <Confirm
                key="workflow"
                label="Cancel"
                question="Cancel this workflow and its running tasks? Its finally-steps run nevertheless."
                onConfirm={() => act("cancel", { reason: "by a person" })}
              />
            )}
          </>
        )}
        {isEnded && !state.includes("SUCCEEDED") && (
          <Confirm
            label="Run what has failed again"
            question="Run the steps again that have not succeeded? The results of the others are taken over."
            onConfirm={() => rerun({ reuseResults: true })}
          />
        )}
        {isEnded && (
          <Confirm
            label="Run again"
            question="Run all steps of this workflow again?"
            onConfirm={() => rerun()}
          />
        )}
        <Acting>
          <Link to="/workflows/new" search={{ from: name }}>
            Edit as a new one
          </Link>
        </Acting>
        <span role="status" className="quiet">
          {troubleOf(link)}
        </span>
      </div>
      <Problem
        error={
          problem ??
          groupsProblem ??
          (spec.data ? undefined : spec.error) ??
          (link.state === "ended" ? link.error : undefined)
        }
      />
      <UnusedReplies replies={unused} onClose={forget} />
      <Group of={workflow.status} what="workflow" />
      {workflow.status?.message && <p className="problem">{workflow.status.message}</p>}
      {Graph && <Graph {...groups} />}
      {sorted.length > ROWS && (
        <div className="bar">
          <label>
            Find a step, or a state
            <input type="search" value={wanted} onChange={(event) => setWanted(event.target.value)} />
          </label>
          <span className="quiet" role="status">
            {matching.length} of {sorted.length} steps
          </span>
        </div>
      )}
      <Table
        label="Steps"
        heads={["State", "Step", "Tasks", "Time", "Details", isEnded && mayAct && hidden("Actions")]}
      >
        {matching.slice(0, rows).map((step) => (
          <tr key={step.name}>
            <td>
              <State value={step.state} prefix="STEP_STATE_" />
            </td>
            <td className="name">
              {step.lastTask ? (
                <Link
                  to="/tasks/$namespace/$id"
                  params={{ namespace: placeOf(name).namespace, id: id(step.lastTask) }}
                >
                  {step.name}
                </Link>
              ) : (
                step.name
              )}
              {(step.round ?? 0) > 1 && ` (round ${step.round})`}
            </td>
            <td>{step.tasksTotal ? `${step.tasksSucceeded ?? 0} of ${step.tasksTotal}` : ""}</td>
            <td>
              <Age from={step.startTime} to={step.endTime} />
            </td>
            <td>
              {step.message}
              {isGroupOf(known, step) && (
                <Within namespace={placeOf(name).namespace} path={step.name ?? ""} groups={groups} />
              )}
              <Group of={step} what="step" />
              {isApproval(step) ? (
                <Decision of={APPROVAL} workflow={name} step={step} onUnused={onUnused} />
              ) : (
                visible(step.prompt)
              )}
              <Compensation of={step} />
              {state === "WORKFLOW_STATE_COMPENSATION_FAILED" &&
                step.compensation === "STEP_STATE_FAILED" && (
                  <Decision
                    of={COMPENSATION}
                    workflow={name}
                    step={step}
                    onUnused={onUnused}
                    onDecided={() => setResolved((count) => count + 1)}
                  />
                )}
            </td>
            {isEnded && mayAct && (
              <td>
                {step.state === "STEP_STATE_SUCCEEDED" && (
                  <Confirm
                    label="Run again from here"
                    name={`Run again from here: ${step.name}`}
                    question={`Run ${visibleLine(step.name)} and what needs it again? The results of the other steps are taken over.`}
                    onConfirm={() => rerun({ reuseResults: true, steps: [step.name ?? ""] })}
                  />
                )}
              </td>
            )}
          </tr>
        ))}
      </Table>
      {matching.length > rows && (
        <button type="button" onClick={() => setRows(rows + ROWS)}>
          Show more steps
        </button>
      )}
    </>
  );
}

function isGroupOf(known: ReadonlyMap<string, Step>, { name = "" }: StepStatus): boolean {
  const step = known.get(name);
  return step !== undefined && isGroup(step);
}

/** The concurrency group of a workflow or a step, and whether it waits for its place there. */
function Group({
  of: { concurrencyGroup, waitsForGroup } = {},
  what,
}: {
  of: { concurrencyGroup?: string; waitsForGroup?: boolean } | undefined;
  what: string;
}) {
  if (!concurrencyGroup) {
    return null;
  }
  return (
    <p className="quiet">
      {waitsForGroup ? `Waits for a place in the ${what} group ` : `In the ${what} group `}
      <code>{visibleLine(concurrencyGroup)}</code>
    </p>
  );
}

/** The state of a compensation, and how a person has resolved its last failure. */
function Compensation({ of: { compensation, resolvedCompensation } }: { of: StepStatus }) {
  if (!compensation || compensation === "STEP_STATE_UNSPECIFIED") {
    return null;
  }
  const { resolution, by, note } = resolvedCompensation ?? {};
  const decision = word(resolution, "COMPENSATION_RESOLUTION_");
  return (
    <p className="quiet">
      Compensation: {word(compensation, "STEP_STATE_")}
      {resolution && `; resolved as ${decision} by ${visibleLine(by)}${note ? `: ${visibleLine(note)}` : ""}`}
    </p>
  );
}
