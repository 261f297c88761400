import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { get, post, put } from "../../api/client";
import { id, word } from "../../api/format";
import { visible, visibleLine } from "../../api/plain";
import { overwrite } from "../../api/refresh";
import type { SystemStatus } from "../../api/types";
import { troubleOf, useStream } from "../../api/useStream";
import { Acting } from "../../components/Acting";
import { Age } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Heading } from "../../components/Heading";
import { Problem } from "../../components/Problem";
import { State } from "../../components/State";
import { hidden, Table } from "../../components/Table";
import { TraceAddress } from "./TraceAddress";

/** The control plane itself, live: its state with causes, its parts, and what an admin changes while it runs. */
export function SystemPage() {
  const cache = useQueryClient();
  const [problem, setProblem] = useState<unknown>();
  const found = useQuery({
    queryKey: ["system"],
    queryFn: ({ signal }) => get<SystemStatus>("system/status", signal),
    // The stream below sends it; a click reads also what it leaves out, such as the times of successes.
    enabled: false,
  });
  const read = () => void found.refetch();
  const link = useStream<SystemStatus>(
    "system",
    () => "system/status:watch",
    (status) => cache.setQueryData(["system"], status),
  );
  const reset = async (name: string) => {
    setProblem(undefined);
    try {
      await post(`${name}:resetBreaker`);
    } catch (error) {
      setProblem(error);
      throw error;
    } finally {
      read();
    }
  };
  const status = found.data;
  return (
    <>
      <Heading what="System" />
      <div className="bar">
        {status && <State value={status.state} prefix="SYSTEM_STATE_" />}
        <button type="button" disabled={found.isFetching} onClick={read}>
          Read again
        </button>
        {status && (
          <span className="quiet">
            read <Age from={new Date(found.dataUpdatedAt).toISOString()} /> ago
          </span>
        )}
      </div>
      <p role="status" className="quiet">
        {status || link.state !== "connecting" ? troubleOf(link) : "Loading…"}
      </p>
      <Problem error={problem ?? found.error ?? (link.state === "ended" ? link.error : undefined)} />
      {status?.causes?.map((cause) => (
        <section key={`${cause.code} ${cause.message}`} className="card" aria-label={cause.code}>
          <p className="problem">{visible(cause.message)}</p>
          {cause.hint && <p className="quiet">{visible(cause.hint)}</p>}
        </section>
      ))}
      {status && <Overview status={status} />}
      {(status?.breakers?.length ?? 0) > 0 && <Breakers breakers={status?.breakers ?? []} reset={reset} />}
      {(status?.replicas?.length ?? 0) > 0 && <Replicas replicas={status?.replicas ?? []} />}
      {status && <Loops tasks={status.backgroundTasks ?? []} />}
      <LogFilter />
      <TraceAddress />
    </>
  );
}

function Overview({ status: { counts = {}, store, ...status } }: { status: SystemStatus }) {
  const mib = (bytes: string | undefined) => `${Math.round(Number(bytes ?? 0) / 2 ** 20)} MiB`;
  const rows: [string, React.ReactNode][] = [
    ["Version", status.version],
    ["Replica", visibleLine(status.replica)],
    ["Running for", <Age key="age" from={status.startTime} />],
    ["Workers", `${counts.workers ?? 0}, ${counts.sessions ?? 0} connected`],
    [
      "Tasks",
      `${counts.pendingTasks ?? 0} pending, ${counts.queuedTasks ?? 0} queued, ${counts.assignedTasks ?? 0} assigned, ${counts.runningTasks ?? 0} running, ${counts.inputRequiredTasks ?? 0} waiting for a person`,
    ],
    ["Store", store?.available ? `answers within ${store.latency}` : "does not answer"],
    ["Last commit", store?.lastCommitTime && <Age key="commit" from={store.lastCommitTime} />],
    ["Last write", store?.writeError && <span className="problem">{visible(store.writeError)}</span>],
    [
      "Disk",
      store?.space &&
        `${mib(store.space.sizeBytes)} used, ${mib(store.space.freeBytes)} free of ${mib(store.space.volumeBytes)}`,
    ],
  ];
  return (
    <dl className="pairs">
      {rows.map(
        ([name, value]) =>
          value && (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ),
      )}
    </dl>
  );
}

function of({ agent, backend }: NonNullable<SystemStatus["breakers"]>[number]) {
  const name = agent || visibleLine(backend);
  return name?.replace("namespaces/", "").replace(/\/(agents|backends)\//, "/");
}

function Breakers({
  breakers,
  reset,
}: {
  breakers: NonNullable<SystemStatus["breakers"]>;
  reset: (name: string) => Promise<void>;
}) {
  return (
    <>
      <h2>Circuit breakers</h2>
      <Table
        label="Circuit breakers"
        heads={["Agent or back end", "State", "Failures", "Last failure", hidden("Actions")]}
      >
        {breakers.map((breaker) => (
          <tr key={breaker.agent || breaker.backend}>
            <td className="name">{of(breaker)}</td>
            <td>{word(breaker.state, "BREAKER_STATE_")}</td>
            <td>{breaker.failures ?? 0}</td>
            <td>
              {word(breaker.failureClass, "FAILURE_CLASS_")}: {visible(breaker.message)}
            </td>
            <td>
              {breaker.agent && (
                <Confirm
                  label="Reset"
                  name={`Reset ${id(breaker.agent)}`}
                  question={`Let ${id(breaker.agent)} have tasks again, without waiting?`}
                  onConfirm={() => reset(breaker.agent ?? "")}
                />
              )}
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}

function Replicas({ replicas }: { replicas: NonNullable<SystemStatus["replicas"]> }) {
  return (
    <>
      <h2>Replicas</h2>
      <Table label="Replicas" heads={["Replica", "Role", "Version", "Address", "Lease"]}>
        {replicas.map((replica) => (
          <tr key={replica.name}>
            <td className="name">{visibleLine(replica.name)}</td>
            <td>{replica.owner ? "owner" : "stands by"}</td>
            <td>{visibleLine(replica.version)}</td>
            <td>{visibleLine(replica.address)}</td>
            <td>{replica.lease}</td>
          </tr>
        ))}
      </Table>
    </>
  );
}

function Loops({ tasks }: { tasks: NonNullable<SystemStatus["backgroundTasks"]> }) {
  return (
    <>
      <h2>Background tasks</h2>
      <Table label="Background tasks" heads={["Name", "State", "Succeeded", "Failed", "Last success"]}>
        {tasks.map((task) => (
          <tr key={task.name}>
            <td className="name">
              {task.name} <span className="quiet">{task.description}</span>
              {task.error && <p className="problem">{visible(task.error)}</p>}
            </td>
            <td>{word(task.state, "BACKGROUND_TASK_STATE_")}</td>
            <td>{task.succeeded ?? 0}</td>
            <td>{task.failed ?? 0}</td>
            <td>
              {task.lastSuccessTime && (
                <>
                  <Age from={task.lastSuccessTime} /> ago
                </>
              )}
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}

/** What the process logs, until it ends. */
function LogFilter() {
  const cache = useQueryClient();
  const [problem, setProblem] = useState<unknown>();
  const [saved, setSaved] = useState(false);
  const found = useQuery({
    queryKey: ["log-filter"],
    queryFn: ({ signal }) => get<{ filter?: string }>("system/logFilter", signal),
  });
  const now = found.data?.filter ?? "";
  // What is typed stays, whatever arrives meanwhile.
  const [typed, setTyped] = useState<{ text: string; over: string }>();
  const set = async (filter: string) => {
    setProblem(undefined);
    try {
      const { filter: over = "" } = await put<{ filter?: string }>("system/logFilter", { filter });
      await overwrite(cache, ["log-filter"], { filter: over });
      // What was typed meanwhile is typed over this one.
      setTyped((typed) => (typed && typed.text !== filter ? { ...typed, over } : undefined));
      setSaved(true);
    } catch (error) {
      setProblem(error);
    }
  };
  return (
    <>
      <h2>Log</h2>
      <Problem error={found.error} />
      {found.data && (
        <Acting otherwise={<code>{now}</code>}>
          <form
            className="bar"
            onSubmit={(event) => {
              event.preventDefault();
              void set(typed?.text ?? now);
            }}
          >
            <label>
              Log filter, until the process ends
              <input
                value={typed?.text ?? now}
                onChange={(event) => {
                  setTyped({ text: event.target.value, over: typed?.over ?? now });
                  setSaved(false);
                }}
                required
                maxLength={1024}
                size={32}
              />
            </label>
            <button type="submit">Set filter</button>
            <span role="status">
              {saved && "Saved. "}
              {typed && typed.over !== now && `It is ${now} now.`}
            </span>
          </form>
        </Acting>
      )}
      <Problem error={problem} />
    </>
  );
}
