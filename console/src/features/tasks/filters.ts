import { query } from "../../api/format";
import type { TaskFilter } from "../../api/types";

type FailureClass = NonNullable<TaskFilter["failureClasses"]>[number];
type TaskState = NonNullable<TaskFilter["states"]>[number];

/** Filters of the list of tasks, as they are in the address. */
export interface TaskSearch {
  /** Words of their texts. A change of all that match knows none. */
  text?: string | undefined;
  state?: string | undefined;
  agent?: string | undefined;
  owner?: string | undefined;
  alias?: string | undefined;
  label?: string | undefined;
  /** Class of the failure, without its prefix. */
  failure?: string | undefined;
  worker?: string | undefined;
  /** Id of the parent. */
  parent?: string | undefined;
  /** Id of the workflow. */
  workflow?: string | undefined;
  thread?: string | undefined;
  minPriority?: number | undefined;
  maxPriority?: number | undefined;
  /** Days in UTC: the first that is included, and the first that is not. */
  since?: string | undefined;
  until?: string | undefined;
  endedSince?: string | undefined;
  endedUntil?: string | undefined;
  /** In US dollars. */
  minCost?: number | undefined;
  minAttempts?: number | undefined;
  /** Columns by state instead of a table. */
  view?: "board" | undefined;
}

const TEXTS = [
  "text",
  "state",
  "agent",
  "owner",
  "alias",
  "label",
  "failure",
  "worker",
  "parent",
  "workflow",
  "thread",
] as const;
const NUMBERS = ["minPriority", "maxPriority", "minCost", "minAttempts"] as const;
const DAYS = ["since", "until", "endedSince", "endedUntil"] as const;

/** Returns the filters of an address or a form. What is no value of its filter is left out. */
export function searchOf(given: Record<string, unknown>): TaskSearch {
  const search: TaskSearch = {};
  for (const name of TEXTS) {
    const value = String(given[name] ?? "").trim();
    if (value) {
      search[name] = value;
    }
  }
  for (const name of NUMBERS) {
    const value = String(given[name] ?? "").trim();
    if (value && Number(value) >= 0) {
      search[name] = Number(value);
    }
  }
  for (const name of DAYS) {
    const value = String(given[name] ?? "");
    if (/^\d{4}-\d\d-\d\d$/.test(value) && !Number.isNaN(Date.parse(value))) {
      search[name] = value;
    }
  }
  if (given.view === "board") {
    search.view = "board";
  }
  return search;
}

/** Whether there is a filter: some tasks are not shown. */
export function isFiltered({ view: _view, ...filters }: TaskSearch): boolean {
  return Object.values(filters).some((value) => value !== undefined);
}

/** Returns key and value of a label. Values may contain the sign between them, keys may not. */
function labelOf(search: TaskSearch): [string, string] {
  const [, key = "", value = ""] = /^([^=]*)=?(.*)$/.exec(search.label ?? "") ?? [];
  return [key, value];
}

/** Returns the begin of a day in UTC. */
function begin(day: string | undefined): string | undefined {
  return day && `${day}T00:00:00Z`;
}

/** Returns the filter of a call that changes tasks. */
export function filterOf(search: TaskSearch): TaskFilter {
  const [key, value] = labelOf(search);
  const { state, failure, agent, owner, alias, worker, thread, workflow, parent } = search;
  const { minPriority, maxPriority, minAttempts, minCost } = search;
  const [since, until] = [begin(search.since), begin(search.until)];
  const [endedSince, endedUntil] = [begin(search.endedSince), begin(search.endedUntil)];
  return {
    ...(state && { states: [`TASK_STATE_${state}` as TaskState] }),
    ...(agent && { agent }),
    ...(owner && { owner }),
    ...(alias && { alias }),
    ...(key && { labels: { [key]: value } }),
    ...(failure && { failureClasses: [`FAILURE_CLASS_${failure}` as FailureClass] }),
    ...(worker && { worker }),
    ...(parent && { parentTask: parent }),
    ...(workflow && { workflow }),
    ...(thread && { thread }),
    ...(minPriority !== undefined && { minPriority }),
    ...(maxPriority !== undefined && { maxPriority }),
    ...(since && { createdAfter: since }),
    ...(until && { createdBefore: until }),
    ...(endedSince && { endedAfter: endedSince }),
    ...(endedUntil && { endedBefore: endedUntil }),
    ...(minCost && { minCostMicroUsd: String(Math.round(minCost * 1e6)) }),
    ...(minAttempts && { minAttempts }),
  };
}

/** Returns the parameters of the call that lists tasks. The filters of `more` take the place of those of the search. */
export function filters(search: TaskSearch, pageSize = 100, more: TaskFilter = {}): string {
  const { labels, ...others } = { ...filterOf(search), ...more };
  const fields = Object.entries(others).map(([name, value]) => [`filter.${name}`, value]);
  const pairs = Object.entries(labels ?? {}).map(([key, value]) => [`filter.labels[${key}]`, [value]]);
  return query({ pageSize, ...Object.fromEntries([...fields, ...pairs]) });
}
