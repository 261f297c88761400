import { id } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Task } from "../../api/types";

/** What people call a task: its title, its alias, or its id. */
export function titleOf(task: Task): string {
  return visibleLine(task.spec?.title) || task.alias || id(task.name);
}
