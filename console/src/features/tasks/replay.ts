import type { Task, TaskSpec } from "../../api/types";

/** Label of tasks that are resources of a cluster, which would cancel one without a resource. */
const CLUSTER = "rota.dev/cluster";
/** Labels of failed tasks that were run again, with the task that did it, and of that one. */
const REPLAYED = "rota.dev/replayed";
const REPLAY_OF = "rota.dev/replay-of";

/** Returns what a person may change of a task that has ended: all but its start, which has passed, and what no page can read. */
export function editable(task: Task): TaskSpec {
  const { startTime: _startTime, secretNames: _secretNames, ...spec } = task.spec ?? {};
  return spec;
}

/** Returns the task that takes the place of an ended one: the same as `rota dead-letters replay --edit` makes. */
export function replayOf(before: Task, spec: TaskSpec): Task {
  const { [CLUSTER]: _cluster, [REPLAYED]: _replayed, ...labels } = before.labels ?? {};
  const task: Task = { spec, labels: { ...labels, [REPLAY_OF]: before.uid ?? "" } };
  if (before.alias) {
    task.alias = before.alias;
  }
  if (before.priority !== undefined) {
    task.priority = before.priority;
  }
  return task;
}

/** Returns the labels of an ended task, with the one that has taken its place. */
export function replayedBy(before: Task["labels"], made: Task): Record<string, string> {
  return { ...before, [REPLAYED]: made.uid ?? "" };
}

/** Returns what has settled a failed task: the id of the task that has taken its place, or `never`. */
export function settledBy(labels: Task["labels"]): string | undefined {
  return labels?.[REPLAYED];
}

/** Whether a task has failed for good and was not run again: those of `rota dead-letters list`. Steps are the matter of their workflow. */
export function isDeadLetter(task: Task): boolean {
  return task.status?.state === "TASK_STATE_FAILED" && !task.step && settledBy(task.labels) === undefined;
}

/** Whether a task has done its work, and that has not passed its checks: a person decides what becomes of it. */
export function hasFailedChecks(task: Task): boolean {
  return isDeadLetter(task) && task.status?.failure?.class === "FAILURE_CLASS_CHECKS";
}
