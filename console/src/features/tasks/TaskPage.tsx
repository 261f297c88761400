import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ActionKeys } from "../../api/actionKeys";
import { newer } from "../../api/changes";
import { get, post } from "../../api/client";
import { dollars, id, isName, isUuid, placeOf, query, word } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Explanation, Task, WatchTaskResponse } from "../../api/types";
import { useStream } from "../../api/useStream";
import { useMayAct } from "../../components/Acting";
import { Age, Moment } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Heading } from "../../components/Heading";
import { Problem } from "../../components/Problem";
import { Scroll } from "../../components/Scroll";
import { State } from "../../components/State";
import { Unread } from "../../components/Unread";
import { UnusedReplies } from "../../components/UnusedReplies";
import { useAct } from "../../components/useAct";
import { useUnused } from "../../components/useReply";
import { Answer } from "../inbox/Answer";
import { Attention } from "../inbox/Attention";
import { traceUrl } from "../system/traces";
import { Artifacts } from "./Artifacts";
import { EditRetry } from "./EditRetry";
import { Log } from "./Log";
import { Lines } from "./lines";
import { settledBy } from "./replay";
import { DISMISSED, fateOf, isSettled } from "./settle";
import { TimelineTable } from "./TimelineTable";
import { Timeline } from "./timeline";
import { titleOf } from "./title";
import { useLogStart } from "./useLogStart";
import { useReplace } from "./useReplace";

const ENDED = /SUCCEEDED|FAILED|CANCELLED/;
/** What a task waits for is in no stream: another cause, such as workers that are busy in place of none, is no entry of its log. */
const EXPLAIN_INTERVAL = 10_000;

/** One task: what it waits for or has done first, then its log, live. */
export function TaskPage() {
  const { namespace, id: task } = useParams({ from: "/tasks/$namespace/$id" });
  if (!isName(namespace) || !isName(task)) {
    return <Unread title="Task" error={new Error("The address names no task.")} />;
  }
  // A page of its own for each task: nothing of the last one stays.
  return <OneTask key={`${namespace}/${task}`} name={`namespaces/${namespace}/tasks/${task}`} />;
}

function OneTask({ name }: { name: string }) {
  const first = useQuery({ queryKey: ["task", name], queryFn: ({ signal }) => get<Task>(name, signal) });
  const [live, setLive] = useState<Task>();
  const navigate = useNavigate();
  const { line = 0 } = useSearch({ from: "/tasks/$namespace/$id" });
  const onLink = useCallback(
    (line: number) => void navigate({ to: ".", search: { line }, replace: true, resetScroll: false }),
    [navigate],
  );
  const [keys] = useState(() => new ActionKeys());
  const mayAct = useMayAct();
  const [lines] = useState(() => new Lines());
  const [timeline] = useState(() => new Timeline());
  const [version, setVersion] = useState(0);
  const [problem, attempt] = useAct();
  const [unused, onUnused, forget] = useUnused();
  const position = useRef<string>(undefined);
  const frame = useRef(0);
  // Messages of the stream lack what does not change, such as the prompt. It ends with the task, which may be settled later.
  const task = useMemo(
    () =>
      live && first.data ? { ...newer(first.data, live), spec: first.data.spec ?? {} } : (first.data ?? live),
    [live, first.data],
  );
  const { seen, see, replace } = useReplace(task ?? {});
  const state = task?.status?.state ?? "";
  const ended = ENDED.test(state);
  // Of the first answer: a later one, with more entries, must not begin again.
  const [known, setKnown] = useState<number>();
  if (known === undefined && first.data) {
    setKnown(Number(first.data.status?.logSeq ?? 0));
  }
  const start = useLogStart(name, known);
  useEffect(() => {
    if (start !== undefined && position.current === undefined) {
      position.current = String(start);
      lines.beginAfter(start);
      timeline.beginAfter(start);
    }
  }, [start, lines, timeline]);
  const link = useStream<WatchTaskResponse>(
    start === undefined ? null : name,
    () => `${name}:watch${query({ afterLogSeq: position.current ?? 0 })}`,
    (message) => {
      const events = message.events ?? [];
      position.current = events.at(-1)?.logSeq ?? position.current;
      if (message.task) {
        setLive(message.task);
      }
      if (events.length > 0) {
        lines.add(events);
        timeline.add(events);
        // Drawn once per frame, however many messages arrive.
        frame.current ||= requestAnimationFrame(() => {
          frame.current = 0;
          setVersion((version) => version + 1);
        });
      }
    },
  );
  const waits =
    state === "TASK_STATE_PENDING" || state === "TASK_STATE_QUEUED" || task?.status?.delivering === true;
  const explained = useQuery({
    queryKey: ["explain", name, task?.status?.logSeq],
    queryFn: ({ signal }) => get<Explanation>(`${name}:explain`, signal),
    enabled: waits,
    refetchInterval: EXPLAIN_INTERVAL,
  });
  const act = (call: Promise<unknown>) => attempt(call.then(() => first.refetch()));
  const retry = async (idempotencyKey: string) => {
    const next = await replace(idempotencyKey, () => post<Task>(`${name}:retry`, { idempotencyKey }));
    await navigate({ to: "/tasks/$namespace/$id", params: placeOf(next.name) });
  };
  if (!task) {
    return <Unread title="Task" error={first.error} />;
  }
  const status = task.status ?? {};
  const trace = traceUrl(status.traceId);
  return (
    <>
      <Heading what="Task" which={titleOf(task)} />
      <div className="bar">
        <State value={state} prefix="TASK_STATE_" />
        {status.progress && (
          <span>
            <progress value={status.progress.fraction ?? 0} aria-label="Progress" /> {status.progress.step}
          </span>
        )}
        {!ended && (
          <Confirm
            label="Cancel"
            question="Cancel this task? What it has done so far is kept."
            onConfirm={() => act(post(`${name}:cancel`, { reason: "by a person" }))}
          />
        )}
        {ended && (
          <Confirm
            label="Retry"
            question={`${isSettled(seen) ? `It was already ${fateOf(seen)}. ` : ""}Create this task again?`}
            onOpen={see}
            onConfirm={() => act(keys.during("retry", retry))}
          />
        )}
      </div>
      <Fate task={task} />
      <Problem error={problem} />
      <UnusedReplies replies={unused} onClose={forget} />
      {waits && <Problem error={explained.error} />}
      {waits && explained.data && (
        <section className="card" aria-label="Why it does not run">
          <p>{explained.data.summary}</p>
          {explained.data.causes?.map((cause) => (
            <p key={cause.code}>
              {cause.message} <span className="quiet">{cause.hint}</span>
            </p>
          ))}
        </section>
      )}
      {status.failure && (
        <section className="card" aria-label="Failure">
          <p className="problem">
            {word(status.failure.class, "FAILURE_CLASS_")}: {status.failure.message}
          </p>
          <p className="quiet">{status.failure.hint}</p>
        </section>
      )}
      {/* The first answer alone has all of the specification; a step of a workflow runs again with that. */}
      {state === "TASK_STATE_FAILED" && mayAct && first.data && !task.step && <EditRetry task={task} />}
      {status.attention && <Attention task={task} attention={status.attention} />}
      {status.pendingInput?.map((request) => (
        <Answer key={request.requestId} task={name} request={request} onUnused={onUnused} />
      ))}
      {status.result && (
        <section aria-label="Result">
          <h2>Result</h2>
          {status.result.delivery?.pullRequest?.url && (
            <p>
              <a href={safe(status.result.delivery.pullRequest.url)} rel="noreferrer noopener">
                Pull request {status.result.delivery.pullRequest.number}
              </a>
            </p>
          )}
          <Scroll label="Text of the result">
            <pre>{status.result.text}</pre>
            {status.result.data && <pre>{JSON.stringify(status.result.data, null, 2)}</pre>}
          </Scroll>
        </section>
      )}
      {status.hasArtifacts && <Artifacts name={name} task={task} ended={ended} />}
      <h2>Log</h2>
      <Log
        name={name}
        lines={lines.all}
        version={version}
        link={link}
        last={Number(status.logSeq ?? 0)}
        linked={line}
        onLink={onLink}
      />
      {mayAct && <Steer name={name} isRunning={state === "TASK_STATE_RUNNING"} />}
      <TimelineTable task={task} timeline={timeline} changes={timeline.changes} />
      <h2>Details</h2>
      <dl className="pairs">
        <Pair name="Id">{id(name)}</Pair>
        <Pair name="Agent">{task.spec?.target?.agent}</Pair>
        <Pair name="Owner">{task.spec?.owner}</Pair>
        <Pair name="Worker">{id(status.worker)}</Pair>
        <Pair name="Attempt">{status.attempt}</Pair>
        <Pair name="Created">
          <Moment at={task.createTime} /> (<Age from={task.createTime} /> ago)
        </Pair>
        <Pair name="Started">{status.startTime && <Moment at={status.startTime} />}</Pair>
        <Pair name="Ended">{status.endTime && <Moment at={status.endTime} />}</Pair>
        <Pair name="Ran for">{status.startTime && <Age from={status.startTime} to={status.endTime} />}</Pair>
        <Pair name="Cost">{dollars(status.usage?.costMicroUsd)}</Pair>
        <Pair name="Tokens">
          {status.usage && `${status.usage.inputTokens ?? 0} in, ${status.usage.outputTokens ?? 0} out`}
        </Pair>
        <Pair name="Trace">
          {trace ? (
            <a href={trace} rel="noreferrer noopener">
              {status.traceId}
            </a>
          ) : (
            status.traceId
          )}
        </Pair>
        <Pair name="Workflow">
          {task.step?.workflow && (
            <Link
              to="/workflows/$namespace/$id"
              params={{ namespace: name.split("/")[1] ?? "", id: id(task.step.workflow) }}
            >
              {id(task.step.workflow)}, step {task.step.step}
            </Link>
          )}
        </Pair>
      </dl>
      {task.spec?.prompt && (
        <>
          <h2>Prompt</h2>
          <pre>{task.spec.prompt}</pre>
        </>
      )}
    </>
  );
}

/** What has become of a settled task. */
function Fate({ task }: { task: Task }) {
  const by = settledBy(task.labels);
  if (by === undefined) {
    return null;
  }
  if (by === DISMISSED.uid) {
    return <p>Dismissed.</p>;
  }
  const { namespace } = placeOf(task.name);
  return (
    <p>
      Run again as{" "}
      {isUuid(by) ? (
        <Link to="/tasks/$namespace/$id" params={{ namespace, id: by }}>
          {by}
        </Link>
      ) : (
        // Anyone who may update the task can set the label to any text.
        visibleLine(by)
      )}
      .
    </p>
  );
}

/** Only web pages: a link with another scheme could run something. */
export function safe(url: string): string {
  return /^https?:\/\//.test(url) ? url : "";
}

function Pair({ name, children }: { name: string; children: React.ReactNode }) {
  if (children === undefined || children === "" || children === null) {
    return null;
  }
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** A message to a running agent. The field that a person has entered stays when the task asks something, waits or ends meanwhile. */
function Steer({ name, isRunning }: { name: string; isRunning: boolean }) {
  const [text, setText] = useState("");
  const [isUsed, setIsUsed] = useState(false);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const [sent, setSent] = useState(false);
  const send = async () => {
    setBusy(true);
    setIsUsed(false);
    setProblem(undefined);
    try {
      await post(`${name}:sendInput`, { input: { text } });
      setText("");
      setSent(true);
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  if (!isRunning && text === "" && !isUsed) {
    return null;
  }
  return (
    <form
      className="answer"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <label>
        Message to the agent
        <textarea
          value={text}
          required
          maxLength={64 * 1024}
          readOnly={busy}
          onFocus={() => setIsUsed(true)}
          onChange={(event) => {
            setText(event.target.value);
            setSent(false);
          }}
        />
      </label>
      <div>
        <button type="submit" disabled={busy || !isRunning}>
          Send
        </button>{" "}
        <span role="status">
          {sent && "Sent."}
          {!isRunning && "The task is not running."}
        </span>
      </div>
      <Problem error={problem} />
    </form>
  );
}
