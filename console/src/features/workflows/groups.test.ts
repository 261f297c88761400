import { expect, test } from "vitest";
import type { StepStatus, WorkflowSpec } from "../../api/types";
import {
  countOfInner,
  countOfStep,
  innerOf,
  innerOfItems,
  itemsOfTasks,
  itemsOfWorkflows,
  MAX_ITEMS,
  openIn,
  shapeOf,
  splitPath,
  stateAt,
  toggled,
} from "./groups";

const needs = (...names: string[]) => names.map((step) => ({ step }));
const spec: WorkflowSpec = {
  steps: [
    { name: "build", task: {} },
    { name: "deploy", needs: needs("build"), workflow: { template: "deploy" } },
    { name: "test", needs: needs("build"), forEach: { items: "x" }, task: {} },
    { name: "notify", needs: needs("deploy", "test"), task: {} },
  ],
  finally: [{ name: "clean", task: {} }],
};
const deploy = innerOf(
  {
    steps: [
      { name: "push" },
      { name: "wait", needs: needs("push") },
      { name: "check", needs: needs("push") },
    ],
    finally: [{ name: "log" }],
  },
  [{ name: "push", state: "STEP_STATE_SUCCEEDED", lastTask: "t" }],
);
const edges = (open: string[], inner: Parameters<typeof shapeOf>[2]) => {
  const { steps, last } = shapeOf(spec, open, inner);
  return [...steps, ...last].map(({ name, needs }) => `${name} < ${needs.map((one) => one.step).join(" ")}`);
};

test("groups are closed at first: each is one step", () => {
  expect(shapeOf(spec).steps.map(({ name, group }) => [name, group])).toEqual([
    ["build", undefined],
    ["deploy", "closed"],
    ["test", "closed"],
    ["notify", undefined],
  ]);
  // One that is to be opened stays closed until what it has inside was read; one that was closed does not stay open.
  const closed = ["build < ", "deploy < build", "test < build", "notify < deploy test", "clean < "];
  expect(edges(["deploy"], new Map())).toEqual(closed);
  expect(edges([], new Map([["deploy", deploy]]))).toEqual(closed);
});

test("the steps of an open group are between its begin and its end", () => {
  expect(edges(["deploy"], new Map([["deploy", deploy]]))).toEqual([
    "build < ",
    "deploy < build",
    "deploy/push < deploy",
    "deploy/wait < deploy/push",
    "deploy/check < deploy/push",
    "deploy/log < deploy/wait deploy/check",
    "deploy/ < deploy/log",
    "test < build",
    "notify < deploy/ test",
    "clean < ",
  ]);
});

test("many ends and many finally-steps are joined in one place", () => {
  const many = (prefix: string) => Array.from({ length: 4000 }, (_, at) => ({ name: `${prefix}${at}` }));
  const wide = innerOf({ steps: many("s"), finally: many("f") }, []);
  const { steps } = shapeOf(spec, ["deploy"], new Map([["deploy", wide]]));
  // All 8,000 are within the bound of what is drawn.
  expect(steps.length).toBe(4 + 8000 + 2);
  expect(steps.reduce((sum, { needs }) => sum + needs.length, 0)).toBeLessThan(20_000);
  const named = new Map(steps.map((step) => [step.name, step]));
  expect(named.get("deploy/f7")?.needs).toEqual([{ step: "deploy//" }]);
  expect(named.get("deploy//")?.needs.length).toBe(4000);
  expect(stateAt("deploy//", new Map([["deploy", { state: "STEP_STATE_RUNNING" }]]), new Map())).toBe(
    "running",
  );
});

test("each step counts once for what is drawn", () => {
  const size = (count: number) =>
    innerOf({ steps: Array.from({ length: count }, (_, at) => ({ name: `s${at}` })) }, []);
  const inner = new Map([["deploy", size(12_000)]]);
  expect(shapeOf(spec, ["deploy", "test"], inner).steps.length).toBe(4 + 12_000 + 1);
  inner.set("test", size(7000));
  expect(shapeOf(spec, ["deploy", "test"], inner).steps.length).toBe(4 + 19_000 + 2);
  inner.set("test", size(9000));
  expect(shapeOf(spec, ["deploy", "test"], inner).steps.length).toBe(4 + 12_000 + 1);
});

test("groups are within groups, and may be empty", () => {
  const outer = innerOf(
    {
      steps: [
        { name: "in", merge: {} },
        { name: "after", needs: needs("in") },
      ],
    },
    [],
  );
  const inner = new Map([
    ["deploy", outer],
    ["deploy/in", innerOf(undefined, [])],
  ]);
  expect(edges(["deploy", "deploy/in"], inner).slice(1, 6)).toEqual([
    "deploy < build",
    "deploy/in < deploy",
    "deploy/in/ < deploy/in",
    "deploy/after < deploy/in/",
    "deploy/ < deploy/after",
  ]);
});

test("a step may stand before what it needs", () => {
  const steps = [
    { name: "b", needs: needs("a") },
    { name: "a", workflow: {} },
  ];
  const shape = shapeOf({ steps }, ["a"], new Map([["a", innerOf({ steps: [{ name: "x" }] }, [])]]));
  expect(shape.steps[0]?.needs).toEqual(needs("a/"));
});

test("more steps than can be drawn stay in their group", () => {
  const many = innerOf({ steps: Array.from({ length: 15_000 }, (_, index) => ({ name: `s${index}` })) }, []);
  const steps = [
    { name: "a", workflow: {} },
    { name: "b", workflow: {} },
  ];
  const shape = shapeOf(
    { steps },
    ["a", "b"],
    new Map([
      ["a", many],
      ["b", many],
    ]),
  );
  expect(shape.steps.length).toBe(15_003);
  expect(shape.steps.at(-1)).toMatchObject({ name: "b", group: "closed" });
});

test("an address names the groups that are open, and nothing else", () => {
  expect(openIn(undefined)).toEqual([]);
  expect(openIn("a/b,a,a,../x,<b>,a/#3,")).toEqual(["a", "a/b", "a/#3"]);
  expect(openIn(Array.from({ length: 99 }, (_, index) => `s${index}`).join(",")).length).toBe(20);
  expect(toggled([], "a")).toBe("a");
  expect(toggled(["a"], "a/b")).toBe("a,a/b");
  expect(toggled(["a", "a/b", "ab"], "a")).toBe("ab");
  expect(toggled(["a"], "a")).toBeUndefined();
  expect(splitPath("a/b/#1")).toEqual({ group: "a/b", name: "#1" });
  expect(splitPath("a")).toEqual({ group: "", name: "a" });
});

test("items are the tasks of the last round, each its newest", () => {
  const task = (item: number, state: "RUNNING" | "FAILED", round = 2, more = {}) => ({
    uid: `t${item}`,
    step: { step: "test", item, round, ...more },
    status: { state: `TASK_STATE_${state}` as const },
  });
  const tasks = [
    task(1, "RUNNING"),
    task(1, "FAILED"),
    task(0, "FAILED", 1),
    task(2, "FAILED", 2, { compensates: true }),
  ];
  const found = innerOfItems(itemsOfTasks(tasks, "test", 2), 3);
  expect([...found.states]).toEqual([
    ["#0", "waiting"],
    ["#1", "running"],
    ["#2", "waiting"],
  ]);
  expect([...found.links]).toEqual([["#1", { task: "t1" }]]);
  expect(itemsOfTasks(tasks, "other", 2)).toEqual([]);
});

test("items that are workflows are in their order, without those of earlier rounds", () => {
  const workflow = (uid: string, parentStep: string) => ({
    uid,
    parentStep,
    status: { state: "WORKFLOW_STATE_RUNNING" as const },
  });
  const all = [workflow("d", "test"), workflow("c", "other"), workflow("b", "test"), workflow("a", "test")];
  expect(itemsOfWorkflows(all, "test", 2)).toEqual([
    { number: 0, state: "running", link: { workflow: "b" } },
    { number: 1, state: "running", link: { workflow: "d" } },
  ]);
});

test("of many items those that need attention are shown", () => {
  const items = Array.from({ length: 1000 }, (_, number) => ({
    number,
    state: number === 900 ? "failed" : number === 901 ? "running" : "succeeded",
  }));
  const found = innerOfItems(items, 10_000);
  expect(found.steps.length).toBe(MAX_ITEMS);
  expect(found.states.get("#900")).toBe("failed");
  expect(found.states.get("#901")).toBe("running");
  expect(found.leftOut).toBe(10_000 - MAX_ITEMS);
  expect(innerOfItems([], 2).leftOut).toBe(0);
});

test("states are those of the workflow, or of the group that a step is in", () => {
  const steps = new Map<string, StepStatus>([["deploy", { state: "STEP_STATE_RUNNING" }]]);
  const inner = new Map([["deploy", deploy]]);
  const paths = ["deploy", "deploy/", "deploy/push", "deploy/wait", "build", "other/push"];
  expect(paths.map((path) => stateAt(path, steps, inner))).toEqual([
    "running",
    "running",
    "succeeded",
    "waiting",
    "waiting",
    "waiting",
  ]);
});

test("groups have counts as soon as they are known", () => {
  const list = { name: "test", forEach: { items: "x" } };
  const status: StepStatus = { tasksTotal: 5, tasksSucceeded: 3 };
  expect(countOfStep(list, status, undefined)).toBe("3 of 5");
  expect(countOfStep(list, undefined, undefined)).toBe("");
  const own = { name: "a", workflow: { spec: { steps: [{}, {}], finally: [{}] } } };
  expect(countOfStep(own, undefined, undefined)).toBe("0 of 3");
  expect(countOfStep(own, undefined, "1 of 3")).toBe("1 of 3");
  // One that has begun has a count of its own, which is not known yet.
  expect(countOfStep(own, { lastWorkflow: "w" }, undefined)).toBe("");
  expect(countOfInner(deploy)).toBe("1 of 1");
  expect(countOfInner(innerOfItems([], 3))).toBe("");
  expect(countOfInner(undefined)).toBe("");
  expect(countOfStep({ name: "a", workflow: { template: "t" } }, undefined, undefined)).toBe("");
  expect(countOfStep({ name: "a" }, status, undefined)).toBe("");
  expect(deploy.states.get("push")).toBe("succeeded");
  expect(deploy.links.get("push")).toEqual({ task: "t" });
});
