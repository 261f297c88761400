import { useQuery, useQueryClient } from "@tanstack/react-query";
import { get } from "../../api/client";
import { query } from "../../api/format";
import type { StepStatus, Workflow } from "../../api/types";
import { useNamespace } from "../../namespace";
import { isApproval } from "./Decision";

/** Running workflows whose steps are read: the newest ones. */
const MOST = 50;
/** Age from which steps are read again although the workflow's counts are the same. */
const MAX_AGE = 30_000;

/** A workflow with the steps that wait for a person. */
export interface Approval {
  workflow: Workflow;
  steps: StepStatus[];
  /** The status at which the steps were read, and when. */
  status: string;
  readAt: number;
}

/** Workflows that wait for a person: those that run, and of them the steps that do. */
export function useApprovals(): Approval[] {
  const namespace = useNamespace();
  const cache = useQueryClient();
  const key = ["approvals", namespace];
  const found = useQuery({
    queryKey: key,
    queryFn: async ({ signal }): Promise<Approval[]> => {
      const running = query({
        pageSize: MOST,
        "filter.states": ["WORKFLOW_STATE_RUNNING", "WORKFLOW_STATE_PAUSED"],
      });
      const list = await get<{ workflows?: Workflow[] }>(
        `namespaces/${namespace}/workflows${running}`,
        signal,
      );
      const known = new Map(
        cache.getQueryData<Approval[]>(key)?.map((one) => [one.workflow.name, one] as const),
      );
      const all = (list.workflows ?? []).map(async (workflow): Promise<Approval> => {
        const status = JSON.stringify(workflow.status);
        const before = known.get(workflow.name);
        if (before?.status === status && Date.now() - before.readAt < MAX_AGE) {
          return before;
        }
        const path = `${workflow.name}/steps?pageSize=1000`;
        const { steps = [] } = await get<{ steps?: StepStatus[] }>(path, signal);
        return { workflow, steps: steps.filter(isApproval), status, readAt: Date.now() };
      });
      return Promise.all(all);
    },
    // There is no feed of all workflows. Out of view, nothing is read.
    refetchInterval: 5000,
  });
  return found.data?.filter((one) => one.steps.length > 0) ?? [];
}
