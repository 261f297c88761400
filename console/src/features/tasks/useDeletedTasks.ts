import { useRef } from "react";
import type { Task } from "../../api/types";
import { useReadEvery } from "../../api/useReadEvery";
import { deletedOf, type Position, READ_INTERVAL } from "./deleted";
import { isEnded } from "./ended";
import type { TaskSearch } from "./filters";
import type { List } from "./listEnd";
import { readPage } from "./page";

interface Reading {
  list: string;
  isBusy: boolean;
  from: Position | undefined;
}

/** Calls `drop` with the names of the tasks of a list that the server has deleted. `list` identifies the search. */
export function useDeletedTasks(
  list: string,
  namespace: string,
  search: TaskSearch,
  listed: List,
  drop: (deleted: ReadonlySet<string>) => void,
): void {
  const reading = useRef<Reading>({ list, isBusy: false, from: undefined });
  if (reading.current.list !== list) {
    reading.current = { list, isBusy: false, from: undefined };
  }
  // Only tasks that have ended are deleted, and these stay in the list of their state. The index of texts may lack some.
  const isLasting = (task: Task) =>
    isEnded(task) && (!search.state || task.status?.state === `TASK_STATE_${search.state}`);
  useReadEvery(READ_INTERVAL, () => {
    const own = reading.current;
    if (own.isBusy || search.text) {
      return;
    }
    own.isBusy = true;
    const read = (token: string, createdBefore: string) =>
      readPage(namespace, search, token, undefined, { createdBefore });
    void deletedOf(listed, isLasting, read, own.from)
      .then(
        ({ deleted, next }) => {
          own.from = next;
          if (deleted.size > 0) {
            drop(deleted);
          }
        },
        () => {
          // The next reading begins with the newest again.
          own.from = undefined;
        },
      )
      .finally(() => {
        own.isBusy = false;
      });
  });
}
