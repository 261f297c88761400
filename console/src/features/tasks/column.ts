import { newer, withChange } from "../../api/changes";
import { createdAt } from "../../api/format";
import type { Task } from "../../api/types";

/** Tasks of a page of the server. */
const PAGE = 100;

/** A page of a column. Its token stands after the oldest task that the server has read for it, also once that has left. */
export interface Page {
  tasks?: Task[];
  nextPageToken?: string;
  /** Number of tasks that were read. */
  read?: number;
  /** Creation of the oldest of them. */
  oldest?: string | undefined;
}

/** Returns a page as the server has read it, without the tasks that have left its column meanwhile. */
export function asRead(page: Page, isHere: (task: Task) => boolean): Page {
  const all = page.tasks ?? [];
  return { ...page, tasks: all.filter(isHere), read: all.length, oldest: all.at(-1)?.createTime };
}

/**
 * Returns the pages of a column, the newest task first, after a change of one: it stays, leaves or enters. `undefined` if the column
 * has to be read again: only the server evaluates filters, cuts a column that has grown to twice its pages, and fills one up that has
 * more tasks than cards and has lost half of these.
 */
export function moved(
  pages: Page[],
  task: Task,
  { isHere, isFiltered }: { isHere: boolean; isFiltered: boolean },
): Page[] | undefined {
  const all = pages.flatMap(({ tasks = [] }) => tasks);
  const known = all.find(({ name }) => name === task.name);
  if (known ? newer(known, task) === known : !isHere) {
    return pages;
  }
  const last = pages.at(-1);
  if (known && isHere) {
    return pages.map((page) => withChange(page, { task }));
  }
  if (known) {
    const read = pages.reduce((sum, page) => sum + (page.read ?? 0), 0);
    const isDrained = last?.nextPageToken && all.length - 1 < read / 2;
    const left = (page: Page) => ({ ...page, tasks: page.tasks?.filter((one) => one !== known) ?? [] });
    return isDrained ? undefined : pages.map(left);
  }
  if (isFiltered || all.length >= 2 * PAGE * pages.length) {
    return undefined;
  }
  if (last?.nextPageToken) {
    const later = createdAt(task) - Date.parse(last.oldest ?? "");
    if (later < 0) {
      // It is on a further page.
      return pages;
    }
    if (!(later > 0)) {
      // Of tasks that were created at the same time, the server knows the order.
      return undefined;
    }
  }
  const isAfter = (one: Task) => createdAt(one) <= createdAt(task);
  const at = pages.findIndex(({ tasks = [] }) => tasks.some(isAfter));
  const index = at < 0 ? pages.length - 1 : at;
  return pages.map((page, one) => {
    const tasks = page.tasks ?? [];
    const place = tasks.findIndex(isAfter);
    return one === index
      ? { ...page, tasks: tasks.toSpliced(place < 0 ? tasks.length : place, 0, task) }
      : page;
  });
}
