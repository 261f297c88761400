import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { MOST, readNewest, spendingOf, sumsOf, withTasks } from "./spending";

const task = (day: string, agent: string, costMicroUsd: string, state: "SUCCEEDED" | "FAILED"): Task => ({
  createTime: `${day}T12:00:00Z`,
  spec: { target: { agent } },
  status: { state: `TASK_STATE_${state}`, usage: { costMicroUsd, inputTokens: "10", model: "small" } },
});

test("costs are added up by day, agent and model", () => {
  const spending = spendingOf([
    task("2026-11-24", "one", "500000", "SUCCEEDED"),
    task("2026-11-25", "two", "2000000", "FAILED"),
    task("2026-11-25", "one", "1000000", "SUCCEEDED"),
  ]);
  expect(spending.micro).toBe(3_500_000);
  expect(spending.days.map((one) => [one.name, one.micro])).toEqual([
    ["2026-11-25", 3_000_000],
    ["2026-11-24", 500_000],
  ]);
  expect(spending.agents.map((one) => [one.name, one.tasks, one.failed])).toEqual([
    ["two", 1, 1],
    ["one", 2, 0],
  ]);
  expect(spending.models).toEqual([
    { name: "small", tasks: 3, succeeded: 2, failed: 1, tokens: 30, micro: 3_500_000 },
  ]);
});

test("the tasks that are read are bounded", async () => {
  const paths: string[] = [];
  const page = { tasks: Array(500).fill(task("2026-11-25", "one", "1", "SUCCEEDED")), nextPageToken: "next" };
  const get = async <T>(path: string) => {
    paths.push(path);
    return page as T;
  };
  const newest = await readNewest("default", new Date(0), get);
  const spending = sumsOf(newest);
  expect([spending.tasks, spending.more, paths.length]).toEqual([MOST, true, 4]);
  expect(paths[0]).toContain("filter.createdAfter=1970-01-01T00");
});

test("tasks that are created and changed are added up without a reading", () => {
  const at = (name: string, day: string, micro: string, logSeq: string) => {
    const one = task(day, "one", micro, "SUCCEEDED");
    return { ...one, name, status: { ...one.status, logSeq } };
  };
  const since = new Date("2026-11-24T00:00:00Z");
  const before = { tasks: [at("b", "2026-11-25", "2", "5"), at("a", "2026-11-24", "1", "5")], more: false };
  const changed = [
    at("c", "2026-11-26", "4", "1"),
    at("a", "2026-11-24", "10", "6"),
    at("b", "2026-11-25", "0", "4"),
  ];
  const after = withTasks(before, changed, since);
  expect(after.tasks.map(({ name, status }) => [name, status?.usage?.costMicroUsd])).toEqual([
    ["c", "4"],
    ["b", "2"],
    ["a", "10"],
  ]);
  // What is older than the time leaves, and more than the bound are left out.
  expect(withTasks(after, [], new Date("2026-11-25T00:00:00Z")).tasks.map(({ name }) => name)).toEqual([
    "c",
    "b",
  ]);
  const many = Array.from({ length: MOST }, (_, index) => at(`d${index}`, "2026-11-26", "1", "1"));
  const full = withTasks(after, many, since);
  expect([full.tasks.length, full.more, full.tasks.some(({ name }) => name === "a")]).toEqual([
    MOST,
    true,
    false,
  ]);
  expect(withTasks(before, [], since).more).toBe(false);
  // Nothing large is kept.
  const [kept] = withTasks(
    { tasks: [], more: false },
    [{ ...at("e", "2026-11-26", "1", "1"), spec: { prompt: "long" } }],
    since,
  ).tasks;
  expect(kept?.spec?.prompt).toBeUndefined();
});
