import type { FetchArtifactsResponse, Task, TaskSpec } from "../../api/types";

/** Label of tasks that are resources of a cluster, which would cancel one without a resource. */
const CLUSTER = "rota.dev/cluster";
/** Label of failed tasks that were replayed, with the task that did it. */
const REPLAYED = "rota.dev/replayed";
/** Labels of tasks that were continued for a pull request: how often, and before which time its comments were considered. */
const FOLLOWED = "rota.dev/followed";
const FOLLOWED_UNTIL = "rota.dev/followed-until";

/** Whether an attempt has left a conversation that another task can continue. */
export function canBeContinued({ attempts = [] }: FetchArtifactsResponse): boolean {
  return attempts.some(({ list }) => list?.checkpoint && !list.checkpoint.unusable);
}

/** Returns the task that continues another one with a message, set up as that one was: the same as `rota continue` makes. */
export function continuationOf(before: Task, prompt: string): Task {
  const {
    // Of the task itself, and not of what comes next.
    title: _title,
    input: _input,
    inputs: _inputs,
    dependsOn: _dependsOn,
    thread: _thread,
    startTime: _startTime,
    secretNames: _secretNames,
    fork: _fork,
    // A kind has completed the task already, and its prompt frame is not that of a comment.
    kind: _kind,
    promptFrame: _promptFrame,
    workspace,
    ...given
  } = before.spec ?? {};
  const spec: TaskSpec = { ...given, prompt, continueFrom: before.uid ?? "" };
  if (workspace) {
    spec.workspace = { ...workspace };
    if (workspace.git) {
      const { refFrom: _refFrom, ...git } = workspace.git;
      spec.workspace.git = git;
    }
    if (workspace.mode === "WORKSPACE_MODE_KEEP") {
      spec.workspace.path = workspace.path || (before.uid ?? "");
    }
  }
  const {
    [CLUSTER]: _cluster,
    [REPLAYED]: _replayed,
    [FOLLOWED]: _followed,
    [FOLLOWED_UNTIL]: _until,
    ...labels
  } = before.labels ?? {};
  const task: Task = { spec, labels };
  if (before.priority !== undefined) {
    task.priority = before.priority;
  }
  return task;
}
