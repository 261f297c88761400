import { memo, useState } from "react";
import { counted } from "../../api/format";
import { exact } from "../../api/time";
import type { Task } from "../../api/types";
import { useNow } from "../../components/Age";
import { optional, Table } from "../../components/Table";
import { lasted, placeOf, type Span, type Timeline, textOf, totalsOf } from "./timeline";

/** Rows at first: the newest. */
const ROWS = 200;

interface Props {
  task: Task;
  timeline: Timeline;
  /** Grows with each change of the timeline. */
  changes: number;
}

/** Whether the same is shown: a task changes with each message of the stream, and its timeline rarely. */
function isSame(before: Props, after: Props): boolean {
  const [old, now] = [before.task, after.task];
  return (
    before.timeline === after.timeline &&
    before.changes === after.changes &&
    old.spec === now.spec &&
    old.status?.waiting === now.status?.waiting &&
    old.status?.endTime === now.status?.endTime
  );
}

/** Attempts, waits and tools of a task: each with a bar, and in words with its times. */
export const TimelineTable = memo(function TimelineTable({ task, timeline }: Props) {
  const [isFailedOnly, setFailedOnly] = useState(false);
  const [attempt, setAttempt] = useState(0);
  const [isAll, setAll] = useState(false);
  const { spans, missing } = timeline;
  const [first] = spans;
  const ended = task.status?.endTime;
  const now = useNow(!ended);
  if (!first) {
    return null;
  }
  const begin = Math.min(Date.parse(task.createTime ?? "") || first.from, first.from);
  const end = Math.max(ended ? Date.parse(ended) : now, spans.at(-1)?.from ?? begin);
  const attempts = [...new Set(spans.map((span) => span.attempt))].filter((one) => one > 0);
  const wanted = spans.filter(
    (span) => (!isFailedOnly || span.isFailed) && (attempt === 0 || span.attempt === attempt),
  );
  const shown = isAll ? wanted : wanted.slice(-ROWS);
  return (
    <>
      <h2>Timeline</h2>
      <p>
        {totalsOf(spans, end)
          .map(([what, millis]) => `${what} ${lasted(millis)}`)
          .join(", ")}
      </p>
      {(missing.entries > 0 || missing.spans > 0) && (
        <p className="quiet">
          {missing.entries > 0 &&
            `${counted(missing.entries, "earlier entry of the log is", "earlier entries of the log are")} not part of it. `}
          {missing.spans > 0 &&
            `${counted(missing.spans, "earlier call or notice is", "earlier calls of tools and notices are")} left out.`}
        </p>
      )}
      <div className="bar">
        {attempts.length > 1 && (
          <label>
            Attempt
            <select value={attempt} onChange={(event) => setAttempt(Number(event.target.value))}>
              <option value={0}>all</option>
              {attempts.map((one) => (
                <option key={one} value={one}>
                  {one}
                </option>
              ))}
            </select>
          </label>
        )}
        <button type="button" aria-pressed={isFailedOnly} onClick={() => setFailedOnly(!isFailedOnly)}>
          Failed only
        </button>
        {wanted.length > shown.length && (
          <button type="button" onClick={() => setAll(true)}>
            Show {wanted.length - shown.length} earlier
          </button>
        )}
      </div>
      {shown.length === 0 ? (
        <p>Nothing of it has failed.</p>
      ) : (
        <Table label="Timeline" heads={["What", optional("Attempt"), "Began after", "Took"]}>
          {shown.map((span) => (
            <Row key={`${span.seq} ${span.kind}`} span={span} task={task} begin={begin} end={end} />
          ))}
        </Table>
      )}
    </>
  );
}, isSame);

function Row({ span, task, begin, end }: { span: Span; task: Task; begin: number; end: number }) {
  const { kind, what, from, to, attempt, depth, isFailed } = span;
  const { left, width } = placeOf(span, begin, end);
  const colour = isFailed ? "failed" : kind;
  return (
    <tr>
      <td className="name">
        <span className={depth ? `nested depth-${depth}` : undefined}>
          {depth > 0 && <span className="hidden">Subagent: </span>}
          <span className={isFailed ? "problem" : undefined}>{textOf(span, task)}</span>
        </span>
        {/* The columns have the same in words. */}
        <div className="track" aria-hidden="true">
          <div className={`span ${colour}`} style={{ marginLeft: `${left}%`, width: `${width}%` }} />
        </div>
      </td>
      <td className="optional">{attempt || ""}</td>
      <td className="when">
        <time dateTime={new Date(from).toISOString()} title={exact(from)}>
          {lasted(Math.max(0, from - begin))}
        </time>
      </td>
      <td className="when">
        {what && lasted(Math.max(0, (to ?? end) - from))}
        {to === undefined && " so far"}
      </td>
    </tr>
  );
}
