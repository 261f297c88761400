import type { Task } from "../../api/types";

/** Tasks that an action reaches at a time. */
export const MOST = 1000;
/** Pages that are read to find them. */
const MAX_PAGES = 40;

interface Page {
  tasks?: Task[];
  nextPageToken?: string;
}

/** Reads all tasks that match, up to a bound, and whether there are more. */
export async function readAll(
  read: (pageToken: string) => Promise<Page>,
): Promise<{ tasks: Task[]; more: boolean }> {
  const tasks: Task[] = [];
  let token = "";
  for (let page = 0; page < MAX_PAGES && tasks.length < MOST; page += 1) {
    const found = await read(token);
    tasks.push(...(found.tasks ?? []));
    token = found.nextPageToken ?? "";
    if (!token) {
      break;
    }
  }
  return { tasks: tasks.slice(0, MOST), more: token !== "" || tasks.length > MOST };
}
