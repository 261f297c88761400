import type { Task } from "../../api/types";

const ENDED = ["TASK_STATE_SUCCEEDED", "TASK_STATE_FAILED", "TASK_STATE_CANCELLED"];

export function isEnded(task: Task): boolean {
  return ENDED.includes(task.status?.state ?? "");
}
