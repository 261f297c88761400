import { Link } from "@tanstack/react-router";
import { id } from "../../api/format";
import { Age } from "../../components/Age";
import { Problem } from "../../components/Problem";
import { useAlerts } from "../alerts/useAlerts";
import { titleOf } from "../tasks/title";
import { type Approvals, MOST } from "../workflows/approvals";
import { Decision } from "../workflows/Decision";
import { nameOf } from "../workflows/name";
import { useApprovals } from "../workflows/useApprovals";
import { Answer } from "./Answer";
import { Attention } from "./Attention";
import { Notify } from "./Notify";
import { useWaiting } from "./useWaiting";

/** Everything that waits for a person, answered in place. */
export function InboxPage() {
  const waiting = useWaiting();
  const approvals = useApprovals();
  const alerts = useAlerts().data?.length ?? 0;
  const { tasks = [], more = false } = waiting.data ?? {};
  const { all = [], failed = [], more: moreRun = false } = approvals.data ?? {};
  const isWhole = waiting.isSuccess && approvals.isSuccess && !more && failed.length === 0;
  return (
    <>
      <h1>Inbox</h1>
      {alerts > 0 && (
        <p>
          Something is wrong: <Link to="/alerts">{alerts === 1 ? "1 alert" : `${alerts} alerts`}</Link>
        </p>
      )}
      <Problem error={waiting.error} />
      <Problem error={approvals.error ?? unread(failed)} />
      {(waiting.isPending || approvals.isPending) && <p role="status">Loading…</p>}
      {isWhole && tasks.length === 0 && all.length === 0 && <p>Nothing waits for a person.</p>}
      {all.map(({ workflow, steps }) => (
        <article key={workflow.name} className="card" aria-label={nameOf(workflow)}>
          <h2>
            <Link
              to="/workflows/$namespace/$id"
              params={{ namespace: workflow.name?.split("/")[1] ?? "", id: id(workflow.name) }}
            >
              {nameOf(workflow)}
            </Link>
          </h2>
          <p className="quiet">
            workflow, <Age from={workflow.createTime} /> old
          </p>
          {steps.map((step) => (
            <Decision key={step.name} workflow={workflow.name ?? ""} step={step} />
          ))}
        </article>
      ))}
      {tasks.map((task) => (
        <article key={task.name} className="card" aria-label={titleOf(task)}>
          <h2>
            <Link
              to="/tasks/$namespace/$id"
              params={{ namespace: task.name?.split("/")[1] ?? "", id: id(task.name) }}
            >
              {titleOf(task)}
            </Link>
          </h2>
          <p className="quiet">
            {task.spec?.target?.agent}, <Age from={task.createTime} /> old
          </p>
          {task.status?.attention && <Attention task={task} attention={task.status.attention} />}
          {task.status?.pendingInput?.map((request) => (
            <Answer key={request.requestId} task={task.name ?? ""} request={request} />
          ))}
        </article>
      ))}
      {more && (
        <p role="status">More than these {tasks.length} tasks may wait: settle some to see the others.</p>
      )}
      {moreRun && (
        <p role="status">
          More than {MOST} workflows run: approvals of the older ones are shown once they change.
        </p>
      )}
      <Notify />
    </>
  );
}

function unread(failed: Approvals["failed"]): Error | undefined {
  const [first] = failed;
  if (!first) {
    return undefined;
  }
  const why = first.why instanceof Error ? first.why.message : String(first.why);
  const workflows = failed.length === 1 ? "workflow" : "workflows";
  return new Error(`the approvals of ${failed.length} ${workflows} could not be read: ${why}`);
}
