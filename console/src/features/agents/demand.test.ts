import { expect, test } from "vitest";
import type { Agent, Worker, WorkerDemand } from "../../api/types";
import { changesList, type Received, received, withAgent, withDemand, workersWith } from "./demand";

const AGENT = "namespaces/n/agents/a";
const worker = (name: string, more: WorkerDemand = {}): WorkerDemand => ({
  worker: name,
  connected: true,
  ...more,
});
const demand = (workers: WorkerDemand[], queued = "0", agent = AGENT) => ({ agent, queued, workers });
const numbers = (agent: Agent, known: Received) => {
  const { workers, drainingWorkers, freeSlots, queuedTasks, runningTasks } =
    withDemand(agent, known).status ?? {};
  return [workers, drainingWorkers, freeSlots, queuedTasks, runningTasks];
};

test("differences change what they name, and a complete message replaces all of it", () => {
  let known = received({}, { demands: [demand([worker("one"), worker("two")], "3")] });
  const listed: Agent = { name: AGENT, status: { freeSlots: 2, runningTasks: "0", queuedTasks: "9" } };
  expect(numbers(listed, {})).toEqual([undefined, undefined, 2, "9", "0"]);
  expect(numbers(listed, known)).toEqual([2, 0, 2, "3", "0"]);
  const running = worker("one", { running: 1, draining: true });
  known = received(known, { difference: true, demands: [demand([running], "2")] });
  expect(numbers(listed, known)).toEqual([2, 1, 1, "2", "1"]);
  known = received(known, { difference: true, demands: [demand([worker("two", { removed: true })], "2")] });
  expect(numbers(listed, known)).toEqual([1, 1, 1, "2", "1"]);
  // A difference that has only causes of waits changes nothing.
  expect(received(known, { difference: true }).demands).toEqual(known.demands);
  known = received(known, { difference: true, demands: [{ agent: AGENT, removed: true }] });
  expect(numbers(listed, known)).toEqual([0, 0, 0, "0", "0"]);
  known = received(known, { demands: [demand([worker("three")], "1")] });
  expect(numbers(listed, known)).toEqual([1, 0, 2, "1", "0"]);
});

test("nothing is known before the last part of a complete message", () => {
  const other = "namespaces/n/agents/b";
  let known = received({}, { more: true, demands: [demand([worker("one")], "3")] });
  expect(known.demands).toBeUndefined();
  known = received(known, { difference: true, demands: [demand([], "4", other)] });
  expect([...(known.demands?.keys() ?? [])]).toEqual([AGENT, other]);
  // Of a complete one that follows, too: what was known stays until then.
  const again = received(known, { more: true, demands: [demand([], "5")] });
  expect(again.demands).toBe(known.demands);
  expect([...(received(again, { difference: true }).demands?.keys() ?? [])]).toEqual([AGENT]);
});

test("tasks that a breaker or a credential holds back are those of the list", () => {
  const known = received({}, { demands: [demand([worker("one")], "1")] });
  const held = (status: Agent["status"]) =>
    numbers({ name: AGENT, status: { queuedTasks: "7", ...status } }, known)[3];
  expect(held({})).toBe("1");
  expect(held({ breaker: "circuit breaker open" })).toBe("7");
  expect(held({ coolDowns: [{ limit: "five_hour" }] })).toBe("7");
});

test("workers are as the stream has them, and come and leave by the list", () => {
  const listed: Worker[] = ["one", "own", "three"].map((name) => ({
    name: `namespaces/n/workers/${name}`,
    agent: "a",
    slots: 2,
    tasks: ["t"],
    succeeded: "5",
  }));
  expect(workersWith(listed, {}).map(({ running }) => running)).toEqual([1, 1, 1]);
  const full = worker("three", { connected: false, unavailable: true, unavailableReason: "disk full" });
  const known = received({}, { demands: [demand([worker("one", { running: 2, draining: true }), full])] });
  expect(workersWith(listed, known)).toEqual([
    { ...listed[0], connected: true, draining: true, notReadyReason: "", running: 2 },
    // That of a single task is no part of the demand of its agent.
    { ...listed[1], running: 1 },
    { ...listed[2], connected: false, draining: false, notReadyReason: "disk full", running: 0 },
  ]);
  // The list has the cause.
  const [held] = workersWith([{ ...listed[2], breaker: "5 failures" }], known);
  expect([held?.notReadyReason, held?.breaker]).toEqual(["", "5 failures"]);
  const changes = (one: WorkerDemand) => changesList({ demands: [demand([one])] }, listed);
  expect(changes(worker("one"))).toBe(false);
  expect(changes(worker("one", { removed: true }))).toBe(true);
  expect(changes(worker("new"))).toBe(true);
  expect(changes(worker("new", { removed: true }))).toBe(false);
  expect(changesList({ demands: [{ agent: AGENT, removed: true }] }, listed)).toBe(true);
});

test("a change of an agent is applied to the page that has it", () => {
  const page = { agents: [{ name: "a" }, { name: "b" }], nextPageToken: "next" };
  const changed: Agent = { name: "b", etag: "2" };
  expect(withAgent(page, { agent: changed })).toEqual({ ...page, agents: [{ name: "a" }, changed] });
  expect(withAgent(page, { deleted: "a" })).toEqual({ ...page, agents: [{ name: "b" }] });
  expect(withAgent(page, { agent: { name: "c" } })).toEqual(page);
});
