import { Link } from "@tanstack/react-router";
import { placeOf, word } from "../../api/format";
import type { Worker } from "../../api/types";
import { Age, Moment } from "../../components/Age";

/** What a worker has done last in its session: the newest in words, the others on demand. */
export function Activity({ worker }: { worker: Worker }) {
  const all = worker.recentActivity ?? [];
  const [newest] = all;
  if (!newest) {
    return null;
  }
  const { namespace } = placeOf(worker.name);
  return (
    <details>
      <summary>
        <span className={newest.action === "failed" ? "problem" : undefined}>{word(newest.action, "")}</span>{" "}
        <Age from={newest.time} /> ago
      </summary>
      <ol className="plain">
        {all.map(({ time, action, task }, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: entries have no names, and no state
          <li key={index}>
            <Moment at={time} />:{" "}
            <span className={action === "failed" ? "problem" : undefined}>{word(action, "")}</span>{" "}
            {task && (
              <Link to="/tasks/$namespace/$id" params={{ namespace, id: task }}>
                {task}
              </Link>
            )}
          </li>
        ))}
      </ol>
    </details>
  );
}
