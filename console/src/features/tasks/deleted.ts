import { createdAt } from "../../api/format";
import type { Task } from "../../api/types";
import { type List, MAX_PAGES, withBehind } from "./listEnd";
import type { Page } from "./page";

/** Time between two readings of what is in view, in milliseconds: the feed does not have the tasks that are deleted. */
export const READ_INTERVAL = 60_000;

/** Place at which a reading has ended. */
export interface Position {
  token: string;
  /** Filter of the reading, to which its token belongs. */
  createdBefore: string;
  /** The part of the list below the last of its tasks that was read. */
  below: List;
}

/**
 * Returns the names of the tasks of a list that the server has deleted: those that its answers lack where they have a later one of the
 * list, or end. No task that is lasting can leave the list of the server for another reason. The place in the list decides, and not the
 * time: the clock of the server may have been set back between any two tasks. `read` reads a page from a token on. A long list takes
 * several readings: each returns the position `from` which the next one continues, and the last one none.
 */
export async function deletedOf(
  list: List,
  isLasting: (task: Task) => boolean,
  read: (token: string, createdBefore: string) => Promise<Page>,
  from?: Position,
): Promise<{ deleted: ReadonlySet<string>; next?: Position }> {
  const lasting = list.tasks.filter(isLasting);
  if (!from && lasting.length === 0) {
    return { deleted: new Set() };
  }
  let { token, createdBefore, below } = from ?? {
    token: "",
    // The end of the millisecond, which the filter excludes.
    createdBefore: new Date(Math.max(...lasting.map(createdAt)) + 1).toISOString(),
    below: list,
  };
  const deleted = new Set<string>();
  const found = new Set<string>();
  const isMissing = (task: Task) => isLasting(task) && !found.has(task.name ?? "");
  let isComplete = false;
  for (let pages = 0; !isComplete && pages < MAX_PAGES; pages += 1) {
    if (from || pages > 0) {
      below = await withBehind(below, (token) => read(token, createdBefore));
    }
    const page = await read(token, createdBefore);
    for (const { name = "" } of page.tasks ?? []) {
      found.add(name);
    }
    token = page.nextPageToken ?? "";
    const last = below.tasks.findLastIndex(({ name = "" }) => found.has(name));
    const end = token === "" ? below.tasks.length : last + 1;
    for (const { name = "" } of below.tasks.slice(0, end).filter(isMissing)) {
      deleted.add(name);
    }
    below = { ...below, tasks: below.tasks.slice(end) };
    isComplete = !below.tasks.some(isMissing);
  }
  return isComplete ? { deleted } : { deleted, next: { token, createdBefore, below } };
}

/** Returns a page without some of its tasks. */
export function without<P extends { tasks?: Task[] }>(page: P, deleted: ReadonlySet<string>): P {
  const tasks = page.tasks?.filter(({ name = "" }) => !deleted.has(name));
  return tasks && tasks.length < (page.tasks?.length ?? 0) ? { ...page, tasks } : page;
}
