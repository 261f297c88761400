import { query } from "../../api/format";

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

/** Returns the parameters of the call that lists tasks. */
export function filters(search: TaskSearch): string {
  // Values may contain the sign, keys may not.
  const [, key = "", value = ""] = /^([^=]*)=?(.*)$/.exec(search.label ?? "") ?? [];
  return query({
    pageSize: 100,
    "filter.states": search.state ? `TASK_STATE_${search.state}` : undefined,
    "filter.agent": search.agent,
    "filter.owner": search.owner,
    "filter.alias": search.alias,
    ...(key && { [`filter.labels[${key}]`]: [value] }),
  });
}
