import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { Changes } from "../../api/changes";
import { get, post } from "../../api/client";
import { Conflict } from "../../api/conflict";
import { id, query } from "../../api/format";
import { visible, visibleLine } from "../../api/plain";
import { refresh } from "../../api/refresh";
import type { Agent, WatchAgentsResponse, WatchDemandResponse, Worker } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { useReadEvery } from "../../api/useReadEvery";
import { troubleOf, useStream } from "../../api/useStream";
import { Age, Moment } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Conflicted } from "../../components/Conflicted";
import { Heading } from "../../components/Heading";
import { More } from "../../components/More";
import { Problem } from "../../components/Problem";
import { hidden, optional, Table } from "../../components/Table";
import { useAct } from "../../components/useAct";
import { useNamespace } from "../../namespace";
import { Activity } from "./Activity";
import { boundsOf } from "./bounds";
import { isHeldBack, LOOK, probeTimeOf, useBreakers } from "./breakers";
import { changesList, type Received, received, withAgent, withDemand, workersWith } from "./demand";
import { Scale } from "./Scale";
import { isSick, sickFirst, stateOf } from "./workers";

interface Page {
  nextPageToken?: string;
}

const isManaged = (agent: Agent) => agent.spec?.management !== "MANAGEMENT_EXTERNAL";

export function AgentsPage() {
  // A page of its own for each namespace: nothing of the last one stays.
  const namespace = useNamespace();
  return <Agents key={namespace} namespace={namespace} />;
}

/**
 * Agents with their demand, and the workers that serve them. The streams have what changes with each task; the lists are read again at
 * a bounded rate for the rest, such as causes and counts.
 */
function Agents({ namespace }: { namespace: string }) {
  const cache = useQueryClient();
  const [problem, act] = useAct();
  const [changes] = useState(() => new Changes<WatchAgentsResponse>());
  const [demand, setDemand] = useState<Received>({});
  const parent = `namespaces/${namespace}`;
  const agents = useInfiniteQuery({
    queryKey: ["agents", namespace],
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      changes.during(
        () =>
          get<Page & { agents?: Agent[] }>(
            `${parent}/agents${query({ pageSize: 200, pageToken: pageParam })}`,
            signal,
          ),
        withAgent,
      ),
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const workers = useInfiniteQuery({
    queryKey: ["workers", namespace],
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      get<Page & { workers?: Worker[] }>(
        `${parent}/workers${query({ pageSize: 200, pageToken: pageParam })}`,
        signal,
      ),
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const readAgents = () => void refresh(cache, ["agents", namespace]);
  const readOthers = () => {
    void refresh(cache, ["workers", namespace]);
    void refresh(cache, ["breakers"]);
  };
  const read = () => {
    readAgents();
    readOthers();
  };
  // What is new is read soon, what the lists alone have of the others at a bounded rate.
  const readSoon = useCoalesced(read);
  const reloadAgents = useCoalesced(readAgents, LOOK);
  const reload = useCoalesced(() => {
    reloadAgents();
    readOthers();
  }, LOOK);
  // No stream has what an operator reports, breakers and credentials.
  useReadEvery(LOOK, reloadAgents);
  const listed = agents.data?.pages.flatMap((page) => page.agents ?? []) ?? [];
  const listedWorkers = workers.data?.pages.flatMap((page) => page.workers ?? []) ?? [];
  // Every agent is sent first; the lists are read once for all of them.
  const isSynced = useRef(false);
  useStream<WatchAgentsResponse>(
    namespace,
    () => {
      isSynced.current = false;
      return `${parent}/agents:watch`;
    },
    (message) => {
      if (!isSynced.current) {
        isSynced.current = message.synced ?? false;
        if (isSynced.current) {
          reload();
        }
        return;
      }
      changes.add(message);
      cache.setQueryData<typeof agents.data>(
        ["agents", namespace],
        (data) => data && { ...data, pages: data.pages.map((page) => withAgent(page, message)) },
      );
      if (message.agent && !agents.hasNextPage && !listed.some(({ name }) => name === message.agent?.name)) {
        readSoon();
      }
    },
  );
  // Queues and workers change without a change of their agent.
  const link = useStream<WatchDemandResponse>(
    namespace,
    () => `${parent}/agents:watchDemand?differences=true`,
    (message) => {
      setDemand((before) => received(before, message));
      changesList(message, listedWorkers) && !workers.hasNextPage ? readSoon() : reload();
    },
  );
  const shown = problem instanceof Conflict ? undefined : problem;
  const shownAgents = listed.map((agent) => withDemand(agent, demand));
  const breakers = useBreakers(isHeldBack(shownAgents));
  const reset = (agent: Agent) => act(post(`${agent.name}:resetBreaker`)).finally(read);
  const shownWorkers = workersWith(listedWorkers, demand);
  return (
    <>
      <Heading what="Agents and workers" />
      <p role="status" className="quiet">
        {troubleOf(link)}
      </p>
      {problem instanceof Conflict && <Conflicted conflict={problem} act={act} />}
      <Problem
        error={shown ?? agents.error ?? workers.error ?? (link.state === "ended" ? link.error : undefined)}
      />
      <Table
        label="Agents"
        heads={[
          "Agent",
          "Workers",
          "Free slots",
          "Queued",
          "Running",
          "Bounds",
          "Problem",
          hidden("Actions"),
        ]}
      >
        {shownAgents.map((agent) => (
          <tr key={agent.name}>
            <td className="name">{id(agent.name)}</td>
            <td>
              {agent.status?.workers ?? 0}
              {agent.status?.drainingWorkers ? `, ${agent.status.drainingWorkers} draining` : ""}
            </td>
            <td>{agent.status?.freeSlots ?? 0}</td>
            <td>{agent.status?.queuedTasks ?? 0}</td>
            <td>{agent.status?.runningTasks ?? 0}</td>
            <td>{boundsOf(agent.spec)}</td>
            <td>
              {agent.status?.message && <p className="problem">{visible(agent.status.message)}</p>}
              {agent.status?.breaker && <p className="problem">{visible(agent.status.breaker)}</p>}
              {probeTimeOf(agent, breakers.data) && (
                <p className="quiet">
                  One task is tried at <Moment at={probeTimeOf(agent, breakers.data)} />
                </p>
              )}
              {agent.status?.coolDowns?.map((one) => (
                <p key={`${one.credential} ${one.limit}`} className="quiet">
                  {visibleLine(one.limit)} until <Moment at={one.untilTime} />
                </p>
              ))}
            </td>
            <td>
              <span className="choices">
                {isManaged(agent) && <Scale agent={agent} act={act} />}
                {agent.status?.breaker && (
                  <Confirm
                    label="Reset the breaker"
                    name={`Reset the breaker of ${id(agent.name)}`}
                    question={`Let ${id(agent.name)} have tasks again, without waiting?`}
                    onConfirm={() => reset(agent)}
                  />
                )}
                <Confirm
                  label="Drain"
                  name={`Drain ${id(agent.name)}`}
                  question={`Let all workers of ${id(agent.name)} end what they run, and take nothing new?`}
                  onConfirm={() => act(post(`${agent.name}:drain`))}
                />
              </span>
            </td>
          </tr>
        ))}
      </Table>
      {(agents.isPending || workers.isPending) && <p role="status">Loading…</p>}
      {agents.isSuccess && shownAgents.length === 0 && <p>There are no agents in this namespace.</p>}
      <More of={agents} what="agents" />
      <h2>Workers</h2>
      <Table
        label="Workers"
        heads={["Worker", "Agent", "State", "Slots", "Succeeded", "Failed", "Last events", optional("Seen")]}
      >
        {sickFirst(shownWorkers).map((worker) => (
          <tr key={worker.name}>
            <td className="name">{id(worker.name)}</td>
            <td>{worker.agent}</td>
            <td>
              <span className={isSick(worker) ? "problem" : undefined}>{stateOf(worker)}</span>
            </td>
            <td>
              {worker.running} of {worker.slots ?? 0}
            </td>
            <td>{worker.succeeded ?? 0}</td>
            <td>{worker.failed ?? 0}</td>
            <td>
              <Activity worker={worker} />
            </td>
            <td className="optional">
              <Age from={worker.lastSeenTime} />
            </td>
          </tr>
        ))}
      </Table>
      <More of={workers} what="workers" />
    </>
  );
}
