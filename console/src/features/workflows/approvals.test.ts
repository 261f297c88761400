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
  prompt: "?",
  ...more,
});
const names = (all: ReturnType<typeof applied>) =>
  all.map((one) => [one.workflow.name, one.steps.map((step) => step.name)]);

test("approvals come, are decided, and go with their workflow", () => {
  let all = applied([], { workflow: workflow("a"), approvals: [step("x", "RUNNING", { index: 2 })] });
  all = applied(all, {
    workflow: workflow("b"),
    approvals: [step("z"), step("task", "RUNNING", { tasksTotal: 1 })],
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

test("a workflow whose steps cannot be read hides no other, and steps of further pages count", async () => {
  const paths: string[] = [];
  const idle = { ...workflow("idle"), status: { counts: { total: 3 } } };
  const get = async <T>(path: string, { pageToken }: Record<string, unknown>): Promise<T> => {
    paths.push(`${path} ${pageToken ?? ""}`);
    if (path.endsWith("/workflows")) {
      const workflows = [...["new", "broken", "old"].map((name) => workflow(name)), idle];
      return { workflows, nextPageToken: "x" } as T;
    }
    if (path === "broken/steps") {
      throw new Error("no");
    }
    const isFirst = path === "old/steps" && !pageToken;
    return (isFirst ? { steps: [step("x", "SUCCEEDED")], nextPageToken: "2" } : { steps: [step("y")] }) as T;
  };
  const found = await readApprovals("default", get);
  expect(names(found.all)).toEqual([
    ["new", ["y"]],
    ["old", ["y"]],
  ]);
  expect(found.failed.map(({ one }) => one.name)).toEqual(["broken"]);
  expect(found.more).toBe(true);
  expect(paths.filter((path) => /^(old|idle)/.test(path))).toEqual(["old/steps ", "old/steps 2"]);
});
