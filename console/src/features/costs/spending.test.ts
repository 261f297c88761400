import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { MOST, readSpending, spendingOf } from "./spending";

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
  const spending = await readSpending("default", new Date(0), get);
  expect([spending.tasks, spending.more, paths.length]).toEqual([MOST, true, 4]);
  expect(paths[0]).toContain("filter.createdAfter=1970-01-01T00");
});
