import { useQuery } from "@tanstack/react-query";
import { get } from "../../api/client";
import type { Alert } from "../../api/types";
import { useNamespace } from "../../namespace";

/** What is wrong is found out by looking: nothing pushes it. */
const INTERVAL = 30_000;

/** What is wrong now in the namespace and with the control plane. */
export function useAlerts() {
  const namespace = useNamespace();
  return useQuery({
    queryKey: ["alerts", namespace],
    refetchInterval: INTERVAL,
    queryFn: async ({ signal }) =>
      (await get<{ alerts?: Alert[] }>(`namespaces/${namespace}/alerts`, signal)).alerts ?? [],
  });
}
