import type { Task } from "../../api/types";
import type { Page } from "./page";

/** Pages that are read at most. */
const MOST_PAGES = 10;

const created = (task: Task | undefined) => Date.parse(task?.createTime ?? "");

/**
 * Returns the names of the tasks of a list, newest first, that the server has deleted: those that its answers lack. `isLasting` is
 * whether a task can leave the list for no other reason. `read` reads a page of the list from a token on.
 */
export async function deletedOf(
  listed: readonly Task[],
  isLasting: (task: Task) => boolean,
  read: (token: string) => Promise<Page>,
): Promise<ReadonlySet<string>> {
  const lasting = listed.filter(isLasting);
  const found = new Set<string | undefined>();
  let oldest = Number.NaN;
  let token = "";
  for (let pages = 0; lasting.length > 0 && pages < MOST_PAGES; pages += 1) {
    const page = await read(token);
    for (const task of page.tasks ?? []) {
      found.add(task.name);
      oldest = created(task);
    }
    token = page.nextPageToken ?? "";
    if (token === "" || oldest < created(lasting.at(-1))) {
      break;
    }
  }
  // What is as old as the last task that was read, or older, may be on a further page.
  const isRead = (task: Task) => token === "" || created(task) > oldest;
  return new Set(
    lasting.filter((task) => !found.has(task.name) && isRead(task)).map(({ name = "" }) => name),
  );
}

/** Returns a page without some of its tasks. */
export function without<P extends { tasks?: Task[] }>(page: P, deleted: ReadonlySet<string>): P {
  const tasks = page.tasks?.filter(({ name = "" }) => !deleted.has(name));
  return tasks && tasks.length < (page.tasks?.length ?? 0) ? { ...page, tasks } : page;
}
