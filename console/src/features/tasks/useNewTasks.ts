import { useRef } from "react";
import type { Task, WatchTasksResponse } from "../../api/types";
import { useReadEvery } from "../../api/useReadEvery";
import { isWithin, useUnseen } from "../../components/unseen";
import { isFiltered, type TaskSearch } from "./filters";
import { type Page, readPage } from "./page";

/** Time between two counts of new tasks with a filter, in milliseconds. */
const COUNT_INTERVAL = 10_000;

/**
 * Counts the tasks that match a search and that its list lacks, which wait for a click: with a filter also older ones, such as a task
 * that fails long after its creation. `list` identifies the search; `hasMore` is whether there are further pages.
 */
export function useNewTasks(
  list: string,
  namespace: string,
  search: TaskSearch,
  tasks: readonly Task[],
  hasMore: boolean,
) {
  const { count, set, reset } = useUnseen(tasks);
  const counting = useRef({ list, mayHaveNew: false, isBusy: false });
  if (counting.current.list !== list) {
    counting.current = { list, mayHaveNew: false, isBusy: false };
    reset();
  }
  // The server alone evaluates filters.
  useReadEvery(COUNT_INTERVAL, () => {
    const own = counting.current;
    if (!own.mayHaveNew || own.isBusy) {
      return;
    }
    own.mayHaveNew = false;
    own.isBusy = true;
    const show = ({ tasks: newest = [], nextPageToken }: Page) => {
      if (counting.current === own) {
        const known = new Set(tasks.map(({ name }) => name));
        const fresh = newest.filter((task) => !known.has(task.name) && isWithin(task, tasks, hasMore));
        reset(fresh, Boolean(nextPageToken) && fresh.length === newest.length);
      }
    };
    const retry = () => {
      own.mayHaveNew = true;
    };
    void readPage(namespace, search, "")
      .then(show, retry)
      .finally(() => {
        own.isBusy = false;
      });
  });
  /** Notes a change of a task that the list lacks. */
  const note = (task: Task, events: WatchTasksResponse["events"]) => {
    if (search.text || search.view === "board") {
      return;
    }
    if (isFiltered(search)) {
      counting.current.mayHaveNew ||= isWithin(task, tasks, hasMore);
    } else if (events?.some((event) => event.state?.reason === "created")) {
      set(task.name, true);
    }
  };
  return { count, note, reset };
}
