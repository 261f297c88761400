import { newer } from "../../api/changes";
import { query } from "../../api/format";
import type { Task } from "../../api/types";

/** Tasks over which costs are added up: the newest ones. */
export const MOST = 2000;
const PAGE = 500;
/** Pages that are read for them: one of large records has fewer. */
const MAX_PAGES = 40;

export interface Spent {
  name: string;
  tasks: number;
  succeeded: number;
  failed: number;
  tokens: number;
  micro: number;
}

export interface Spending {
  tasks: number;
  micro: number;
  days: Spent[];
  agents: Spent[];
  models: Spent[];
  /** Whether older tasks of the time are left out. */
  more: boolean;
}

/** The newest tasks since a time, up to a bound, with what costs are added up of. */
export interface Newest {
  tasks: Task[];
  more: boolean;
}

/** Returns a task without the rest, which may be large. */
const slim = ({ name, createTime, spec, status }: Task) =>
  ({
    name,
    createTime,
    spec: { target: { agent: spec?.target?.agent } },
    status: { logSeq: status?.logSeq, state: status?.state, usage: status?.usage },
  }) as Task;

/** Returns the newest tasks since a time after some have been created or changed. */
export function withTasks(before: Newest, changed: Task[], since: Date): Newest {
  const all = new Map(before.tasks.map((task) => [task.name, task]));
  for (const task of changed) {
    all.set(task.name, slim(newer(all.get(task.name) ?? task, task)));
  }
  const created = (task: Task) => Date.parse(task.createTime ?? "");
  const tasks = [...all.values()]
    .filter((task) => created(task) >= since.getTime())
    .sort((one, other) => created(other) - created(one));
  return { tasks: tasks.slice(0, MOST), more: before.more || tasks.length > MOST };
}

/** Adds the costs of the newest tasks up. */
export const sumsOf = ({ tasks, more }: Newest): Spending => ({ ...spendingOf(tasks), more });

/** Reads the newest tasks since a time. */
export async function readNewest(
  namespace: string,
  since: Date,
  get: <T>(path: string) => Promise<T>,
): Promise<Newest> {
  const tasks: Task[] = [];
  let token = "";
  for (let page = 0; page < MAX_PAGES && tasks.length < MOST; page += 1) {
    const found = await get<{ tasks?: Task[]; nextPageToken?: string }>(
      `namespaces/${namespace}/tasks${query({
        pageSize: PAGE,
        "filter.createdAfter": since.toISOString(),
        pageToken: token,
      })}`,
    );
    tasks.push(...(found.tasks ?? []).map(slim));
    token = found.nextPageToken ?? "";
    if (!token) {
      break;
    }
  }
  return { tasks: tasks.slice(0, MOST), more: token !== "" || tasks.length > MOST };
}

/** Adds the costs of tasks up: by the day of UTC of their creation, as budgets count days, by agent and by model. */
export function spendingOf(tasks: Task[]): Omit<Spending, "more"> {
  const [days, agents, models] = [new Map(), new Map(), new Map()] as Map<string, Spent>[];
  let micro = 0;
  for (const task of tasks) {
    micro += Number(task.status?.usage?.costMicroUsd ?? 0);
    add(days, task.createTime?.slice(0, 10) ?? "", task);
    add(agents, task.spec?.target?.agent ?? "by capabilities", task);
    const model = task.status?.usage?.model;
    if (model) {
      add(models, model, task);
    }
  }
  const byCost = (all: Map<string, Spent> | undefined) =>
    [...(all?.values() ?? [])].sort((one, other) => other.micro - one.micro || other.tasks - one.tasks);
  return {
    tasks: tasks.length,
    micro,
    days: [...(days?.values() ?? [])].sort((one, other) => other.name.localeCompare(one.name)),
    agents: byCost(agents),
    models: byCost(models),
  };
}

function add(all: Map<string, Spent> | undefined, name: string, { status }: Task): void {
  const one = all?.get(name) ?? { name, tasks: 0, succeeded: 0, failed: 0, tokens: 0, micro: 0 };
  const usage = status?.usage;
  one.tasks += 1;
  one.succeeded += status?.state === "TASK_STATE_SUCCEEDED" ? 1 : 0;
  one.failed += status?.state === "TASK_STATE_FAILED" ? 1 : 0;
  one.micro += Number(usage?.costMicroUsd ?? 0);
  for (const tokens of [
    usage?.inputTokens,
    usage?.outputTokens,
    usage?.cacheReadTokens,
    usage?.cacheWriteTokens,
  ]) {
    one.tokens += Number(tokens ?? 0);
  }
  all?.set(name, one);
}
