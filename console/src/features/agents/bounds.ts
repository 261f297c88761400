import type { Agent } from "../../api/types";

type Spec = NonNullable<Agent["spec"]>;

/** Returns the workers of an agent at least and at most: without a ceiling of its own, it is the floor, but at least one. */
export function boundsIn({ replicas = 0, maxReplicas }: Spec = {}): { floor: number; ceiling: number } {
  return { floor: replicas, ceiling: Math.max(maxReplicas ?? 1, replicas) };
}

/** Returns how many workers an agent has, in words. */
export function boundsOf(spec: Spec | undefined): string {
  if (spec?.management === "MANAGEMENT_EXTERNAL") {
    return "external";
  }
  const { floor, ceiling } = boundsIn(spec);
  return ceiling === 0 ? "suspended" : floor === ceiling ? `${floor}` : `${floor} to ${ceiling}`;
}
