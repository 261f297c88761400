import type { Task } from "../../api/types";
import { useReadEvery } from "../../api/useReadEvery";
import { deletedOf, READ_INTERVAL } from "./deleted";
import { isEnded } from "./ended";
import type { TaskSearch } from "./filters";
import { readPage } from "./page";

/** Calls `drop` with the names of the tasks of a list that the server has deleted. */
export function useDeletedTasks(
  namespace: string,
  search: TaskSearch,
  tasks: readonly Task[],
  drop: (deleted: ReadonlySet<string>) => void,
): void {
  // Only tasks that have ended are deleted, and these stay in the list of their state. The index of texts may lack some.
  const isLasting = (task: Task) =>
    isEnded(task) && (!search.state || task.status?.state === `TASK_STATE_${search.state}`);
  useReadEvery(READ_INTERVAL, () => {
    const lasting = tasks.filter(isLasting);
    const newest = lasting[0]?.createTime;
    if (search.text || !newest) {
      return;
    }
    // The end of the millisecond, which the filter excludes.
    const createdBefore = new Date(Date.parse(newest) + 1).toISOString();
    // The next reading tries again.
    deletedOf(lasting, (token) => readPage(namespace, search, token, undefined, { createdBefore })).then(
      (deleted) => deleted.size > 0 && drop(deleted),
      () => {},
    );
  });
}
