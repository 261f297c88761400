import { createdAt } from "../../api/format";
import type { Task } from "../../api/types";
import type { Page } from "./page";

/** Time between two readings of what is in view, in milliseconds: the feed does not have the tasks that are deleted. */
export const READ_INTERVAL = 60_000;

/** Pages of one reading. */
const MAX_PAGES = 10;

/** Place in the list of the server at which a reading has ended. */
export interface Position {
  token: string;
  /** Filter of the reading, to which its token belongs. */
  createdBefore: string;
  /** Creation of the last task that was read, in milliseconds. */
  oldest: number;
}

/**
 * Returns the names of the tasks of a list, newest first, that the server has deleted: those that its answers lack. No task of the list
 * can leave that of the server for another reason. `read` reads a page from a token on. A long list takes several readings: each returns
 * the position `from` which the next one continues, and the last one none.
 */
export async function deletedOf(
  listed: readonly Task[],
  read: (token: string, createdBefore: string) => Promise<Page>,
  from?: Position,
): Promise<{ deleted: ReadonlySet<string>; next?: Position }> {
  if (listed.length === 0) {
    return { deleted: new Set() };
  }
  // Not of the first and the last one: the clock of the server may have been set back between them.
  const times = listed.map(createdAt);
  const end = Math.min(...times);
  let { token, createdBefore, oldest } = from ?? {
    token: "",
    // The end of the millisecond, which the filter excludes.
    createdBefore: new Date(Math.max(...times) + 1).toISOString(),
    oldest: Number.POSITIVE_INFINITY,
  };
  // Those before the position were judged, and those of the same time may be on either side of it.
  const begin = oldest;
  const missing = new Map(
    listed.filter((task) => createdAt(task) < begin).map((task) => [task.name ?? "", task]),
  );
  let isComplete = missing.size === 0;
  for (let pages = 0; !isComplete && pages < MAX_PAGES; pages += 1) {
    const page = await read(token, createdBefore);
    for (const task of page.tasks ?? []) {
      missing.delete(task.name ?? "");
      oldest = createdAt(task);
    }
    token = page.nextPageToken ?? "";
    isComplete = missing.size === 0 || token === "" || oldest < end;
  }
  // What is as old as the last task that was read, or older, may be on a further page.
  const isRead = (task: Task) => token === "" || createdAt(task) > oldest;
  const deleted = new Set([...missing].filter(([, task]) => isRead(task)).map(([name]) => name));
  return isComplete ? { deleted } : { deleted, next: { token, createdBefore, oldest } };
}

/** Returns a page without some of its tasks. */
export function without<P extends { tasks?: Task[] }>(page: P, deleted: ReadonlySet<string>): P {
  const tasks = page.tasks?.filter(({ name = "" }) => !deleted.has(name));
  return tasks && tasks.length < (page.tasks?.length ?? 0) ? { ...page, tasks } : page;
}
