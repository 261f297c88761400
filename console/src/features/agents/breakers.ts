import { useQuery } from "@tanstack/react-query";
import { get } from "../../api/client";
import type { Agent, SystemStatus } from "../../api/types";

type Breaker = NonNullable<SystemStatus["breakers"]>[number];

/** Time between two readings of what no stream of the page has, such as when a breaker becomes half-open, in milliseconds. */
export const LOOK = 10_000;

/** Whether a circuit breaker holds any of these agents back. */
export const isHeldBack = (agents: readonly Agent[]) =>
  agents.some((agent) => Boolean(agent.status?.breaker));

/** Returns when the breaker that holds an agent back admits a task again; nothing if it does, or is that of a back end. */
export function probeTimeOf(agent: Agent, breakers: readonly Breaker[] = []): string | undefined {
  // What was read of breakers may be older than the agent.
  const own = agent.status?.breaker ? breakers.find((breaker) => breaker.agent === agent.name) : undefined;
  return own?.state === "BREAKER_STATE_OPEN" ? own.openUntilTime : undefined;
}

/** Circuit breakers with their times, while they are needed. An agent has the rest as text. */
export function useBreakers(isNeeded: boolean) {
  return useQuery({
    queryKey: ["breakers"],
    enabled: isNeeded,
    refetchInterval: LOOK,
    queryFn: async ({ signal }) => (await get<SystemStatus>("system/status", signal)).breakers ?? [],
  });
}
