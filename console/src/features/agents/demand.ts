import { id } from "../../api/format";
import type { Agent, WatchAgentsResponse, WatchDemandResponse, Worker, WorkerDemand } from "../../api/types";

interface AgentDemand {
  queued: number;
  workers: ReadonlyMap<string, WorkerDemand>;
}

/** Demand by the full name of its agent. An agent without demand and workers has none. */
type Demands = ReadonlyMap<string, AgentDemand>;

/** What the stream of demand has sent. */
export interface Received {
  /** Unknown before the first message was received as a whole. */
  demands?: Demands;
  /** Parts of a complete message, until its last. */
  parts?: Demands;
}

const NO_DEMAND: AgentDemand = { queued: 0, workers: new Map() };

/** Returns what is known after a message: one that is complete replaces all of it, with its parts. */
export function received(before: Received, message: WatchDemandResponse): Received {
  const demands = new Map(message.difference ? (before.parts ?? before.demands) : []);
  for (const { agent = "", queued, workers = [], removed } of message.demands ?? []) {
    const known = new Map(demands.get(agent)?.workers);
    for (const worker of workers) {
      worker.removed ? known.delete(worker.worker ?? "") : known.set(worker.worker ?? "", worker);
    }
    removed ? demands.delete(agent) : demands.set(agent, { queued: Number(queued ?? 0), workers: known });
  }
  const isPart = message.more && (!message.difference || before.parts !== undefined);
  return isPart ? { ...before, parts: demands } : { demands };
}

/** Whether workers have come or left, of those of a list. */
export function changesList({ demands = [] }: WatchDemandResponse, workers: Worker[]): boolean {
  const known = new Set(workers.map(({ name }) => id(name)));
  return demands.some(
    ({ workers = [], removed }) =>
      removed || workers.some(({ worker = "", removed = false }) => removed === known.has(worker)),
  );
}

/** Returns an agent of a list with what the stream has of its workers and tasks. */
export function withDemand(agent: Agent, { demands }: Received): Agent {
  if (!demands) {
    return agent;
  }
  const { queued, workers } = demands.get(agent.name ?? "") ?? NO_DEMAND;
  const connected = [...workers.values()].filter((worker) => worker.connected);
  const running = [...workers.values()].reduce((sum, worker) => sum + (worker.running ?? 0), 0);
  const status = agent.status ?? {};
  // Demand counts only as many as a breaker or a credential admits.
  const isHeldBack = status.breaker || (status.coolDowns ?? []).length > 0;
  // It has no slots: what has started since the list was read took free ones.
  const free = (status.freeSlots ?? 0) + Number(status.runningTasks ?? 0) - running;
  return {
    ...agent,
    status: {
      ...status,
      workers: connected.length,
      drainingWorkers: connected.filter((worker) => worker.draining).length,
      freeSlots: workers.size === 0 ? 0 : Math.max(0, free),
      queuedTasks: isHeldBack ? (status.queuedTasks ?? "0") : String(queued),
      runningTasks: String(running),
    },
  };
}

/** Returns the workers of a list as the stream has them, with how many tasks each has. It lacks workers of a single task. */
export function workersWith(workers: Worker[], { demands }: Received): (Worker & { running: number })[] {
  return workers.map((worker) => {
    const parent = worker.name?.replace(/\/workers\/.*/, "");
    const now = demands?.get(`${parent}/agents/${worker.agent}`)?.workers.get(id(worker.name));
    if (!now) {
      return { ...worker, running: worker.tasks?.length ?? 0 };
    }
    const { connected = false, draining = false, running = 0, unavailableReason = "" } = now;
    // The list has a text for each cause; the stream one for both.
    const notReadyReason = worker.notReadyReason || (worker.breaker ? "" : unavailableReason);
    return { ...worker, connected, draining, notReadyReason, running };
  });
}

/** Returns a page of agents after a change of one of them. */
export function withAgent<P extends { agents?: Agent[] }>(
  page: P,
  { agent, deleted }: WatchAgentsResponse,
): P {
  const agents = page.agents?.flatMap((one) =>
    one.name === deleted ? [] : [one.name === agent?.name && agent ? agent : one],
  );
  return agents ? { ...page, agents } : page;
}
