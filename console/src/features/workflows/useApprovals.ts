import { useQuery, useQueryClient } from "@tanstack/react-query";
import { get } from "../../api/client";
import { useWorkflowFeed, WORKFLOWS } from "../../api/feed";
import { isIn, query } from "../../api/format";
import { refresh } from "../../api/refresh";
import type { WatchWorkflowsResponse } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { useNamespace } from "../../namespace";
import { type Approvals, applied, readApprovals } from "./approvals";

/** Applies a change of a workflow of the namespace. */
const appliedIn = (namespace: string) => (before: Approvals, message: WatchWorkflowsResponse) => {
  const all = isIn(namespace, message.workflow?.name) ? applied(before.all, message) : before.all;
  return all === before.all ? before : { ...before, all };
};

/** Workflows that wait for a person, with the steps that do. */
export function useApprovals() {
  const namespace = useNamespace();
  return useQuery({
    queryKey: ["approvals", namespace],
    queryFn: ({ signal }) =>
      WORKFLOWS.changes.during(
        () => readApprovals(namespace, (path, values) => get(`${path}${query(values)}`, signal)),
        appliedIn(namespace),
      ),
  });
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
      cache.setQueryData<Approvals>(key, (before) => before && appliedIn(namespace)(before, message));
    },
  });
}
