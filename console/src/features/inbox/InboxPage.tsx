import { Link } from "@tanstack/react-router";
import { counted, id } from "../../api/format";
import { Age } from "../../components/Age";
import { Heading } from "../../components/Heading";
import { Problem } from "../../components/Problem";
import { UnusedReplies } from "../../components/UnusedReplies";
import { useUnused } from "../../components/useReply";
import { useNamespace } from "../../namespace";
import { useAlerts } from "../alerts/useAlerts";
import { hasFailedChecks } from "../tasks/replay";
import { titleOf } from "../tasks/title";
import { MOST } from "../workflows/approvals";
import { APPROVAL, Decision } from "../workflows/Decision";
import { nameOf } from "../workflows/name";
import { useApprovals } from "../workflows/useApprovals";
import { Answer } from "./Answer";
import { Attention } from "./Attention";
import { FailedChecks } from "./FailedChecks";
import { Notify } from "./Notify";
import { DAYS_OF_FAILED_CHECKS, useWaiting } from "./useWaiting";

export function InboxPage() {
  // A page of its own for each namespace: nothing of the last one stays.
  return <Inbox key={useNamespace()} />;
}

/** Everything that waits for a person, answered in place. */
function Inbox() {
  const waiting = useWaiting();
  const approvals = useApprovals();
  const alerts = useAlerts().data?.length ?? 0;
  const [unused, onUnused, forget] = useUnused();
  const { tasks = [], more = false, isCut = false } = waiting.data ?? {};
  const { all = [], more: moreApprovals = false } = approvals.data ?? {};
  const isWhole = waiting.isSuccess && approvals.isSuccess && !more && !isCut && !moreApprovals;
  return (
    <>
      <Heading what="Inbox" />
      {alerts > 0 && (
        <p>
          Something is wrong: <Link to="/alerts">{counted(alerts, "alert")}</Link>
        </p>
      )}
      <UnusedReplies replies={unused} onClose={forget} />
      <Problem error={waiting.error} />
      <Problem error={approvals.error} />
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
            <Decision
              key={step.name}
              of={APPROVAL}
              workflow={workflow.name ?? ""}
              step={step}
              onUnused={onUnused}
            />
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
          {hasFailedChecks(task) && <FailedChecks task={task} onUnused={onUnused} />}
          {task.status?.pendingInput?.map((request) => (
            <Answer key={request.requestId} task={task.name ?? ""} request={request} onUnused={onUnused} />
          ))}
        </article>
      ))}
      {more && (
        <p role="status">More than these {tasks.length} tasks may wait: settle some to see the others.</p>
      )}
      {isCut && (
        <p role="status">
          Not all tasks were looked through: older ones may wait, too. Find them on the{" "}
          <Link to="/tasks">Tasks page</Link>.
        </p>
      )}
      {tasks.some(hasFailedChecks) && (
        <p className="quiet">
          Failed checks are shown for {DAYS_OF_FAILED_CHECKS} days. Older ones:{" "}
          <code>rota dead-letters list --class checks</code>
        </p>
      )}
      {moreApprovals && <p role="status">More than {MOST} approvals wait: decide some to see the others.</p>}
      <Notify />
    </>
  );
}
