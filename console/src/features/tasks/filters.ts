import { query } from "../../api/format";
import type { TaskFilter } from "../../api/types";

type TaskState = NonNullable<TaskFilter["states"]>[number];

/** Filters of the list of tasks, as they are in the address. */
export interface TaskSearch {
  state?: string | undefined;
  agent?: string | undefined;
  owner?: string | undefined;
  alias?: string | undefined;
  label?: string | undefined;
  /** Columns by state instead of a table. */
  view?: "board" | undefined;
}

/** Returns key and value of a label. Values may contain the sign between them, keys may not. */
function labelOf(search: TaskSearch): [string, string] {
  const [, key = "", value = ""] = /^([^=]*)=?(.*)$/.exec(search.label ?? "") ?? [];
  return [key, value];
}

/** Returns the filter of a call that changes tasks. */
export function filterOf(search: TaskSearch): TaskFilter {
  const [key, value] = labelOf(search);
  const { agent, owner, alias } = search;
  return {
    ...(search.state && { states: [`TASK_STATE_${search.state}` as TaskState] }),
    ...(agent && { agent }),
    ...(owner && { owner }),
    ...(alias && { alias }),
    ...(key && { labels: { [key]: value } }),
  };
}

/** Returns the parameters of the call that lists tasks. */
export function filters(search: TaskSearch): string {
  const [key, value] = labelOf(search);
  return query({
    pageSize: 100,
    "filter.states": search.state ? `TASK_STATE_${search.state}` : undefined,
    "filter.agent": search.agent,
    "filter.owner": search.owner,
    "filter.alias": search.alias,
    ...(key && { [`filter.labels[${key}]`]: [value] }),
  });
}
