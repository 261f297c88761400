import { useRef } from "react";
import type { Task, WatchTasksResponse } from "../../api/types";
import { useReadEvery } from "../../api/useReadEvery";
import { isWithin, useUnseen } from "../../components/unseen";
import { isFiltered, type TaskSearch } from "./filters";
import type { Listed } from "./listEnd";
import { intervalsPerCount, newTasksOf } from "./newTasks";
import { readPage } from "./page";

/** Time between two counts of a list of one page, in milliseconds. */
const COUNT_INTERVAL = 10_000;

/**
 * Counts the tasks that match a search and that its list lacks, which wait for a click: with a filter also older ones, such as a task
 * that fails long after its creation. `list` identifies the search.
 */
export function useNewTasks(list: string, namespace: string, search: TaskSearch, listed: Listed) {
  const { count, set, reset } = useUnseen(listed.tasks);
  const counting = useRef({ list, mayHaveNew: false, isBusy: false, intervals: 0 });
  if (counting.current.list !== list) {
    counting.current = { list, mayHaveNew: false, isBusy: false, intervals: 0 };
    reset();
  }
  // The server alone evaluates filters.
  useReadEvery(COUNT_INTERVAL, () => {
    const own = counting.current;
    // Those since the last count: a tab that is out of view between them loses a part of one.
    own.intervals += 1;
    if (!own.mayHaveNew || own.isBusy || own.intervals < intervalsPerCount(listed.pages)) {
      return;
    }
    own.intervals = 0;
    own.mayHaveNew = false;
    own.isBusy = true;
    const show = ({ fresh, isPart }: Awaited<ReturnType<typeof newTasksOf>>) => {
      if (counting.current === own) {
        reset(fresh, isPart);
      }
    };
    const retry = () => {
      own.mayHaveNew = true;
    };
    void newTasksOf(listed, (token) => readPage(namespace, search, token))
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
    const isCreated = events?.some((event) => event.state?.reason === "created") ?? false;
    if (isFiltered(search)) {
      counting.current.mayHaveNew ||= isCreated || isWithin(task, listed.tasks, listed.next !== undefined);
    } else if (isCreated) {
      set(task.name, true);
    }
  };
  return { count, note, reset };
}
