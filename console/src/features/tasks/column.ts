import { newer, withChange } from "../../api/changes";
import type { Task } from "../../api/types";

/** Tasks of a page of the server. */
const PAGE = 100;

interface Page {
  tasks?: Task[];
  nextPageToken?: string;
}

const created = ({ createTime }: Task) => Date.parse(createTime ?? "");

/**
 * Returns the pages of a column, the newest task first, after a change of one: it stays, leaves or enters. `undefined` if the column
 * has to be read again: only the server evaluates filters, and a column that has grown to twice its pages is cut by it.
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
  if (known) {
    const left = (page: Page) => ({ ...page, tasks: page.tasks?.filter((one) => one !== known) ?? [] });
    return pages.map((page) => (isHere ? withChange(page, { task }) : left(page)));
  }
  if (isFiltered || all.length >= 2 * PAGE * pages.length) {
    return undefined;
  }
  const isAfter = (one: Task) => created(one) <= created(task);
  const at = pages.findIndex(({ tasks = [] }) => tasks.some(isAfter));
  if (at < 0 && pages.at(-1)?.nextPageToken) {
    // It is on a further page.
    return pages;
  }
  const index = at < 0 ? pages.length - 1 : at;
  return pages.map((page, one) => {
    const tasks = page.tasks ?? [];
    const place = tasks.findIndex(isAfter);
    return one === index
      ? { ...page, tasks: tasks.toSpliced(place < 0 ? tasks.length : place, 0, task) }
      : page;
  });
}
