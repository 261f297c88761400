import { expect, test } from "vitest";
import type { StepStatus, Workflow } from "../../api/types";
import { applied, readApprovals } from "./approvals";

const workflow = (name: string, state = "RUNNING"): Workflow => ({
  name,
  status: { state: `WORKFLOW_STATE_${state}` as "WORKFLOW_STATE_RUNNING" },
});
const step = (name: string, state: "RUNNING" | "SUCCEEDED" = "RUNNING", more = {}): StepStatus => ({
  name,
  state: `STEP_STATE_${state}`,
  kind: "STEP_KIND_APPROVAL",
  ...more,
});
const names = (all: ReturnType<typeof applied>) =>
  all.map((one) => [one.workflow.name, one.steps.map((step) => step.name)]);

test("approvals come, are decided, and go with their workflow", () => {
  let all = applied([], { workflow: workflow("a"), approvals: [step("x", "RUNNING", { index: 2 })] });
  all = applied(all, {
    workflow: workflow("b"),
    approvals: [step("z"), step("other", "RUNNING", { kind: "STEP_KIND_TASK", prompt: "?" })],
  });
  all = applied(all, { workflow: workflow("a"), approvals: [step("y", "RUNNING", { index: 1 })] });
  expect(names(all)).toEqual([
    ["b", ["z"]],
    ["a", ["y", "x"]],
  ]);
  all = applied(all, { workflow: workflow("a"), approvals: [step("y", "SUCCEEDED")] });
  all = applied(all, { workflow: workflow("b", "CANCELLED") });
  expect(names(all)).toEqual([["a", ["x"]]]);
  expect(applied(all, { workflow: { name: "a" }, deleted: true })).toEqual([]);
  expect(applied(all, { workflow: workflow("c"), approvals: [] })).toBe(all);
});

test("approvals are read page by page, and those of a workflow are together", async () => {
  const asked: unknown[] = [];
  const of = (name: string, step: StepStatus) => ({ workflow: workflow(name), step });
  const get = async <T>(path: string, values: Record<string, unknown>): Promise<T> => {
    asked.push([path, values]);
    return (
      values.pageToken
        ? { approvals: [of("new", step("a", "RUNNING", { index: 1 })), of("old", step("c"))] }
        : { approvals: [of("new", step("b", "RUNNING", { index: 2 }))], nextPageToken: "x" }
    ) as T;
  };
  const found = await readApprovals("default", get);
  expect(names(found.all)).toEqual([
    ["new", ["a", "b"]],
    ["old", ["c"]],
  ]);
  expect(found.more).toBe(false);
  const path = "namespaces/default/approvals";
  expect(asked).toEqual([
    [path, { pageSize: 200, pageToken: "" }],
    [path, { pageSize: 199, pageToken: "x" }],
  ]);
});
