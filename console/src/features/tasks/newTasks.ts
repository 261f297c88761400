import type { Task } from "../../api/types";
import { isWithin } from "../../components/unseen";
import { type Listed, MAX_PAGES, withBehind } from "./listEnd";
import type { Page } from "./page";

/** Returns the intervals between two counts: as many as the pages of a list that each one reads. */
export const intervalsPerCount = (pages: number) => Math.min(Math.max(1, pages), MAX_PAGES);

/**
 * Returns the tasks that a list, newest first, lacks of those that the server has down to its last row, and whether there may be more.
 * The place in the list decides, and not the time: the clock of the server may have been set back between any two tasks. `read` reads a
 * page from a token on: as many as the list has, one more for what is new, and one behind the last row where that has left.
 */
export async function newTasksOf(
  list: Listed,
  read: (token: string) => Promise<Page>,
): Promise<{ fresh: Task[]; isPart: boolean }> {
  const known = new Set(list.tasks.map(({ name }) => name));
  // Below it are those of further pages, if there are any.
  const last = list.next ? list.tasks.at(-1) : undefined;
  const found: Task[] = [];
  let token = "";
  let end = -1;
  for (let count = 0; count <= list.pages && count < MAX_PAGES; count += 1) {
    const { tasks = [], nextPageToken = "" } = await read(token);
    found.push(...tasks);
    token = nextPageToken;
    end = last ? found.findIndex(({ name }) => name === last.name) : -1;
    if (end >= 0 || token === "") {
      break;
    }
  }
  let isWhole = token === "";
  if (last && end < 0) {
    const { tasks, next } = await withBehind(list, read);
    const behind = new Set(tasks.slice(list.tasks.length).map(({ name }) => name));
    end = found.findIndex(({ name }) => behind.has(name));
    isWhole &&= behind.size === 0 && next === undefined;
  }
  if (end < 0 && isWhole) {
    end = found.length;
  }
  // Where the end is not found, the time is what remains to judge by.
  const above =
    end < 0
      ? found.filter((task) => isWithin(task, list.tasks, list.next !== undefined))
      : found.slice(0, end);
  return { fresh: above.filter(({ name }) => !known.has(name)), isPart: end < 0 };
}
