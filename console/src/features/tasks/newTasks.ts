import type { Task } from "../../api/types";
import { isWithin } from "../../components/unseen";
import type { Page } from "./page";

/** Pages that are read at most. */
const MAX_PAGES = 10;

/**
 * Returns the tasks that a list, newest first, lacks of those that the server has down to its last row, and whether there may be more.
 * `read` reads a page from a token on: as many as the list has, and one more for what is new.
 */
export async function newTasksOf(
  pages: readonly Page[],
  read: (token: string) => Promise<Page>,
): Promise<{ fresh: Task[]; isPart: boolean }> {
  const listed = pages.flatMap(({ tasks = [] }) => tasks);
  const known = new Set(listed.map(({ name }) => name));
  const hasMore = Boolean(pages.at(-1)?.nextPageToken);
  // Below it are those of further pages, if there are any.
  const last = hasMore ? listed.at(-1) : undefined;
  const fresh: Task[] = [];
  let token = "";
  for (let count = 0; count <= pages.length && count < MAX_PAGES; count += 1) {
    const { tasks = [], nextPageToken = "" } = await read(token);
    const end = last ? tasks.findIndex(({ name }) => name === last.name) : -1;
    const above = end < 0 ? tasks : tasks.slice(0, end);
    fresh.push(...above.filter((task) => !known.has(task.name) && isWithin(task, listed, hasMore)));
    const oldest = tasks.at(-1);
    if (end >= 0 || nextPageToken === "" || (oldest && !isWithin(oldest, listed, hasMore))) {
      return { fresh, isPart: false };
    }
    token = nextPageToken;
  }
  return { fresh, isPart: true };
}
