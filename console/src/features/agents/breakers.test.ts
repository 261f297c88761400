import { expect, test } from "vitest";
import { isHeldBack, probeTimeOf } from "./breakers";

const name = "namespaces/n/agents/a";

test("an agent is held back by a breaker that is not closed", () => {
  expect(isHeldBack([])).toBe(false);
  expect(isHeldBack([{ name }, { name, status: { breaker: "" } }])).toBe(false);
  expect(isHeldBack([{ name }, { name, status: { breaker: "agent a: circuit breaker half-open" } }])).toBe(
    true,
  );
});

test("an open breaker of the agent itself has the time of its probe", () => {
  const openUntilTime = "2030-01-01T00:00:00Z";
  const open = { agent: name, state: "BREAKER_STATE_OPEN" as const, openUntilTime };
  const ofBackend = {
    backend: "namespaces/n/backends/b",
    state: "BREAKER_STATE_OPEN" as const,
    openUntilTime,
  };
  const held = { name, status: { breaker: "agent a: circuit breaker open for 20 s" } };
  expect(probeTimeOf(held, [ofBackend, open])).toBe(openUntilTime);
  expect(probeTimeOf(held, [ofBackend])).toBeUndefined();
  expect(probeTimeOf(held, [{ ...open, state: "BREAKER_STATE_HALF_OPEN" }])).toBeUndefined();
  expect(probeTimeOf(held)).toBeUndefined();
  expect(probeTimeOf({ name }, [open])).toBeUndefined();
});
