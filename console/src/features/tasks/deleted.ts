import { createdAt } from "../../api/format";
import type { Task } from "../../api/types";
import type { Page } from "./page";

/** Time between two readings of what is in view, in milliseconds: the feed does not have the tasks that are deleted. */
export const READ_INTERVAL = 60_000;

/** Pages of one reading. */
const MAX_PAGES = 10;

/**
 * Returns the names of the tasks of a list, newest first, that the server has deleted: those that its answers lack. No task of the list
 * can leave that of the server for another reason. `read` reads a page from a token on, the newest of these tasks first.
 */
export async function deletedOf(
  listed: readonly Task[],
  read: (token: string) => Promise<Page>,
): Promise<ReadonlySet<string>> {
  const missing = new Map(listed.map((task) => [task.name ?? "", task]));
  let oldest = Number.NaN;
  let token = "";
  for (let pages = 0; missing.size > 0 && pages < MAX_PAGES; pages += 1) {
    const page = await read(token);
    for (const task of page.tasks ?? []) {
      missing.delete(task.name ?? "");
      oldest = createdAt(task);
    }
    token = page.nextPageToken ?? "";
    if (token === "" || oldest < createdAt(listed.at(-1))) {
      break;
    }
  }
  // What is as old as the last task that was read, or older, may be on a further page.
  const isRead = (task: Task) => token === "" || createdAt(task) > oldest;
  return new Set([...missing].filter(([, task]) => isRead(task)).map(([name]) => name));
}

/** Returns a page without some of its tasks. */
export function without<P extends { tasks?: Task[] }>(page: P, deleted: ReadonlySet<string>): P {
  const tasks = page.tasks?.filter(({ name = "" }) => !deleted.has(name));
  return tasks && tasks.length < (page.tasks?.length ?? 0) ? { ...page, tasks } : page;
}
