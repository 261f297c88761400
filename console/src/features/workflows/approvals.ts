import type { ListApprovalsResponse, StepStatus, WatchWorkflowsResponse, Workflow } from "../../api/types";

/** Approvals that are read. Those of others arrive with the changes of their workflows. */
export const MOST = 200;
const ENDED = /SUCCEEDED|FAILED|CANCELLED/;

/** A workflow with its steps that wait for a person. */
export interface Approval {
  workflow: Workflow;
  steps: StepStatus[];
}

/** What is known of the approvals of a namespace. */
export interface Approvals {
  all: Approval[];
  /** Whether further steps wait. */
  more: boolean;
}

type Get = <T>(path: string, values: Record<string, string | number | string[]>) => Promise<T>;

/** Reads the newest approvals. */
export async function readApprovals(namespace: string, get: Get): Promise<Approvals> {
  const all: Approval[] = [];
  let pageToken = "";
  for (let count = 0; count < MOST; ) {
    const values = { pageSize: MOST - count, pageToken };
    const page = await get<ListApprovalsResponse>(`namespaces/${namespace}/approvals`, values);
    for (const { workflow, step } of page.approvals ?? []) {
      if (workflow && step) {
        const known = all.findIndex((one) => one.workflow.name === workflow.name);
        const steps = [...(all[known]?.steps ?? []), step];
        all.splice(known < 0 ? all.length : known, known < 0 ? 0 : 1, { workflow, steps: inOrder(steps) });
        count += 1;
      }
    }
    pageToken = page.nextPageToken ?? "";
    if (!pageToken) {
      break;
    }
  }
  return { all, more: pageToken !== "" };
}

const inOrder = (steps: StepStatus[]) => steps.sort((one, other) => (one.index ?? 0) - (other.index ?? 0));

/** Whether a step waits for the decision of a person. */
export function isApproval(step: StepStatus): boolean {
  return step.kind === "STEP_KIND_APPROVAL" && step.state === "STEP_STATE_RUNNING";
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
  const steps = isOver ? [] : inOrder([...kept, ...approvals.filter(isApproval)]);
  if (!workflow || steps.length === 0) {
    return index < 0 ? before : before.toSpliced(index, 1);
  }
  const after = { workflow, steps };
  return index < 0 ? [after, ...before] : before.with(index, after);
}
