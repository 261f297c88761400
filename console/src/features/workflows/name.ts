import { id } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Workflow } from "../../api/types";

/** What people call a workflow: its title, its alias, or its id. */
export function nameOf(workflow: Workflow): string {
  return visibleLine(workflow.spec?.title) || workflow.alias || id(workflow.name);
}
