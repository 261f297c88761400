import { ApiError, Code } from "../../api/client";
import { forEach } from "../../api/each";
import type { StepStatus, WatchWorkflowsResponse, Workflow } from "../../api/types";

/** Running workflows whose steps are read at first: the newest ones. Those of others arrive with their changes. */
export const MOST = 50;
/** Pages of steps that are read of one: it has at most 10,000. */
const MOST_PAGES = 20;
const ENDED = /SUCCEEDED|FAILED|CANCELLED/;

/** A workflow with its steps that wait for a person. */
export interface Approval {
  workflow: Workflow;
  steps: StepStatus[];
}

/** What is known of the approvals of a namespace. */
export interface Approvals {
  all: Approval[];
  /** Workflows whose steps could not be read, with the reasons. */
  failed: { one: Workflow; why: unknown }[];
  /** Whether further workflows run, of which only changes are known. */
  more: boolean;
}

type Get = <T>(path: string, values: Record<string, string | number | string[]>) => Promise<T>;

/** Reads the approvals of the newest running workflows, a few workflows at a time. One that fails hides no other. */
export async function readApprovals(
  namespace: string,
  get: Get,
  isOver: () => boolean = () => false,
): Promise<Approvals> {
  const list = await get<{ workflows?: Workflow[]; nextPageToken?: string }>(
    `namespaces/${namespace}/workflows`,
    { pageSize: MOST, "filter.states": ["WORKFLOW_STATE_RUNNING", "WORKFLOW_STATE_PAUSED"] },
  );
  // An approval that waits is a step that runs.
  const workflows = (list.workflows ?? []).filter(({ status }) => !status?.counts || status.counts.running);
  const found = new Map<Workflow, StepStatus[]>();
  const failed = await forEach(workflows, async (workflow) => {
    const steps: StepStatus[] = [];
    let pageToken = "";
    // Of a read that was abandoned, no further call is made.
    for (let page = 0; page < MOST_PAGES && !isOver(); page += 1) {
      const read = await get<{ steps?: StepStatus[]; nextPageToken?: string }>(`${workflow.name}/steps`, {
        pageSize: 1000,
        pageToken,
      });
      steps.push(...(read.steps ?? []).filter(isApproval));
      pageToken = read.nextPageToken ?? "";
      if (!pageToken) {
        break;
      }
    }
    found.set(workflow, steps);
  });
  const all = workflows.reduceRight<Approval[]>(
    (before, workflow) => applied(before, { workflow, approvals: found.get(workflow) ?? [] }),
    [],
  );
  // One that was deleted meanwhile has none.
  const isDeleted = (why: unknown) => why instanceof ApiError && why.code === Code.NOT_FOUND;
  return { all, failed: failed.filter(({ why }) => !isDeleted(why)), more: Boolean(list.nextPageToken) };
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
