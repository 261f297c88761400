import { get, patch } from "../../api/client";
import { changeOfLatest } from "../../api/conflict";
import { query } from "../../api/format";
import type { Task } from "../../api/types";
import { replayedBy } from "./replay";

/** In place of a task that takes the place of another one: none does, as the documentation names it. */
export const NONE: Task = { uid: "never" };

/** Records which task has taken the place of one that has failed, which is no dead letter any more. */
export async function settle(task: Task, made: Task): Promise<void> {
  await changeOfLatest<Task>(
    task,
    () => get<Task>(task.name ?? ""),
    ({ name, labels }, headers) =>
      patch(`${name}${query({ updateMask: "labels" })}`, { name, labels: replayedBy(labels, made) }, headers),
  );
}
