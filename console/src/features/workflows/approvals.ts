import type { StepStatus, WatchWorkflowsResponse, Workflow } from "../../api/types";

const ENDED = /SUCCEEDED|FAILED|CANCELLED/;

/** A workflow with its steps that wait for a person. */
export interface Approval {
  workflow: Workflow;
  steps: StepStatus[];
}

/** Whether a step waits for the decision of a person. */
export function isApproval(step: StepStatus): boolean {
  return step.state === "STEP_STATE_RUNNING" && step.prompt !== undefined && !step.tasksTotal;
}

/** Returns the approvals after a change of one workflow, the newest first. */
export function applied(
  before: Approval[],
  { workflow, approvals = [], deleted }: WatchWorkflowsResponse,
): Approval[] {
  const index = before.findIndex((one) => one.workflow.name === workflow?.name);
  const changed = new Map(approvals.map((step) => [step.name, step]));
  const kept = before[index]?.steps.filter((step) => !changed.has(step.name)) ?? [];
  const isOver = deleted || ENDED.test(workflow?.status?.state ?? "");
  const steps = isOver
    ? []
    : [...kept, ...approvals.filter(isApproval)].sort((one, other) => (one.index ?? 0) - (other.index ?? 0));
  if (!workflow || steps.length === 0) {
    return index < 0 ? before : before.toSpliced(index, 1);
  }
  const after = { workflow, steps };
  return index < 0 ? [after, ...before] : before.with(index, after);
}
