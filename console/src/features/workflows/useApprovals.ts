import { useQuery, useQueryClient } from "@tanstack/react-query";
import { get } from "../../api/client";
import { useWorkflowFeed } from "../../api/feed";
import { query } from "../../api/format";
import { refresh } from "../../api/refresh";
import type { StepStatus, Workflow } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { useNamespace } from "../../namespace";
import { type Approval, applied } from "./approvals";

/** Running workflows whose steps are read at first: the newest ones. Those of others arrive with their changes. */
const MOST = 50;

async function read(namespace: string, signal: AbortSignal): Promise<Approval[]> {
  const running = query({
    pageSize: MOST,
    "filter.states": ["WORKFLOW_STATE_RUNNING", "WORKFLOW_STATE_PAUSED"],
  });
  const list = await get<{ workflows?: Workflow[] }>(`namespaces/${namespace}/workflows${running}`, signal);
  const all = (list.workflows ?? []).map(async (workflow) => {
    const path = `${workflow.name}/steps?pageSize=1000`;
    const { steps = [] } = await get<{ steps?: StepStatus[] }>(path, signal);
    return { workflow, approvals: steps };
  });
  return (await Promise.all(all)).reduceRight<Approval[]>(applied, []);
}

/** Workflows that wait for a person, with the steps that do. */
export function useApprovals(): Approval[] {
  const namespace = useNamespace();
  const found = useQuery({
    queryKey: ["approvals", namespace],
    queryFn: ({ signal }) => read(namespace, signal),
  });
  return found.data ?? [];
}

/** Keeps them current while a page is open: once for the whole page. */
export function useApprovalUpdates(): void {
  const namespace = useNamespace();
  const cache = useQueryClient();
  const key = ["approvals", namespace];
  const reload = useCoalesced(() => void refresh(cache, key));
  useWorkflowFeed({
    reload,
    receive: (message) => {
      if (!message.workflow) {
        return;
      }
      if (cache.isFetching({ queryKey: key }) > 0 || !cache.getQueryData(key)) {
        // What is being read may lack this change.
        reload();
      } else {
        cache.setQueryData<Approval[]>(key, (before) => applied(before ?? [], message));
      }
    },
  });
}
