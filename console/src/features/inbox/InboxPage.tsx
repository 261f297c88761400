import { Link } from "@tanstack/react-router";
import { id } from "../../api/format";
import { Age } from "../../components/Age";
import { Problem } from "../../components/Problem";
import { titleOf } from "../tasks/title";
import { Answer } from "./Answer";
import { useWaiting } from "./useWaiting";

/** Everything that waits for a person, answered in place. */
export function InboxPage() {
  const { tasks, more, error } = useWaiting();
  return (
    <>
      <h1>Inbox</h1>
      <Problem error={error} />
      {tasks.length === 0 && !more && !error && <p>Nothing waits for a person.</p>}
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
          {task.status?.pendingInput?.map((request) => (
            <Answer key={request.requestId} task={task.name ?? ""} request={request} />
          ))}
        </article>
      ))}
      {more && (
        <p role="status">More than these {tasks.length} tasks may wait: answer some to see the others.</p>
      )}
    </>
  );
}
