import { word } from "../../api/format";
import type { StepStatus, Task, Workflow, WorkflowSpec } from "../../api/types";

export type Step = NonNullable<WorkflowSpec["steps"]>[number];

/** Groups that an address may open, and items of a list that are drawn. */
const MAX_OPEN = 20;
export const MAX_ITEMS = 100;
/** Steps of all groups that are drawn: a group beyond them stays closed. */
const MAX_DRAWN = 20_000;
/** Names of steps, and of items within a step with a list. */
const PATH = /^[A-Za-z][\w-]*(\/([A-Za-z][\w-]*|#\d+))*$/;

/** What a group has inside: steps of the workflow that it runs, or the items of its list. */
export interface Inner {
  steps: Step[];
  last: Step[];
  /** In words, by name. */
  states: ReadonlyMap<string, string>;
  /** Of steps of a workflow, by name. */
  statuses: ReadonlyMap<string, StepStatus>;
  /** Newest tasks and workflows, by name. */
  links: ReadonlyMap<string, Link>;
  /** Items that are not shown. */
  leftOut: number;
}

/** A step as it is drawn. */
export interface Drawn {
  /** Its path: the names of the groups around it, and its own. That of the end of a group ends with a slash, that before its finally-steps with two. */
  name: string;
  label: string;
  needs: { step: string }[];
  group?: "open" | "closed";
}

export interface Shape {
  steps: Drawn[];
  /** Finally-steps. */
  last: Drawn[];
}

/** A picture of a workflow. */
export interface Picture {
  shape: Shape;
  /** State of a step, in words. */
  stateOf: (path: string) => string;
  /** What a group has, in words; empty if that is not known yet. */
  countOf: (path: string) => string;
  /** Opens or closes a group. */
  toggle?: (path: string) => void;
}

/** What a step has done last. */
export interface Link {
  task?: string;
  workflow?: string;
}

/** Groups of a workflow that runs. */
export interface Groups extends Picture {
  open: readonly string[];
  inner: ReadonlyMap<string, Inner>;
  linkOf: (path: string) => Link | undefined;
  /** Whether what is inside of the open ones was read. */
  isRead: boolean;
  toggle: (path: string) => void;
}

export const NO_GROUPS: ReadonlyMap<string, Inner> = new Map();

/** Whether a step has others inside: a workflow, or items. */
export const isGroup = (step: Step) => Boolean(step.forEach || step.workflow || step.merge);

/** Returns the groups that an address opens, those outside before those inside. */
export function openIn(text: string | undefined): string[] {
  const paths = (text ?? "").split(",").filter((path) => PATH.test(path));
  return [...new Set(paths)].slice(0, MAX_OPEN).sort((one, other) => depthOf(one) - depthOf(other));
}

const depthOf = (path: string) => path.split("/").length;

/** Returns the groups that are open after one was opened or closed: what is inside of a closed one is closed, too. */
export function toggled(open: readonly string[], path: string): string | undefined {
  const after = open.includes(path)
    ? open.filter((one) => one !== path && !one.startsWith(`${path}/`))
    : [...open, path];
  return after.join(",") || undefined;
}

/** Returns the group that a path is in, and the name within it. */
export function splitPath(path: string): { group: string; name: string } {
  const at = path.lastIndexOf("/");
  return at < 0 ? { group: "", name: path } : { group: path.slice(0, at), name: path.slice(at + 1) };
}

/** Returns a workflow as it is drawn: an open group has its steps between its begin and its end. */
export function shapeOf(
  spec: WorkflowSpec,
  open: readonly string[] = [],
  inner: ReadonlyMap<string, Inner> = NO_GROUPS,
): Shape {
  let count = (spec.steps?.length ?? 0) + (spec.finally?.length ?? 0);
  const within = (path: string) => (open.includes(path) ? inner.get(path) : undefined);
  const entered = new Set<string>();
  const exit = (path: string) => (entered.has(path) ? `${path}/` : path);
  const expand = (steps: Step[], prefix: string, roots: string[]) => {
    const opened = new Map<Step, Inner>();
    for (const step of steps) {
      const path = `${prefix}${step.name}`;
      const found = within(path);
      const size = found ? found.steps.length + found.last.length : 0;
      if (found && count + size <= MAX_DRAWN) {
        count += size;
        opened.set(step, found);
        entered.add(path);
      }
    }
    const drawn: Drawn[] = [];
    const needed = new Set<string>();
    for (const step of steps) {
      const name = `${prefix}${step.name}`;
      const needs = (step.needs ?? []).map((need) => need.step ?? "");
      for (const need of needs) {
        needed.add(need);
      }
      const from = needs.length > 0 ? needs.map((need) => exit(`${prefix}${need}`)) : roots;
      const found = opened.get(step);
      const group = found ? ("open" as const) : isGroup(step) ? ("closed" as const) : undefined;
      const label = step.name ?? "";
      drawn.push({ name, label, needs: from.map((step) => ({ step })), ...(group && { group }) });
      if (found) {
        const main = expand(found.steps, `${name}/`, [name]);
        // Many ends and many finally-steps are joined in one place: each with each would be millions of lines.
        const isJoined = main.ends.length > 1 && found.last.length > 1;
        const joint = isJoined
          ? [{ name: `${name}//`, label: `finally of ${label}`, needs: main.ends.map((step) => ({ step })) }]
          : [];
        const before = isJoined ? [`${name}//`] : main.ends.length > 0 ? main.ends : [name];
        const last = expand(found.last, `${name}/`, before);
        const ends = [last.ends, main.ends, [name]].find((one) => one.length > 0) ?? [];
        const end = { name: `${name}/`, label: `end of ${label}`, needs: ends.map((step) => ({ step })) };
        for (const one of [main.drawn, joint, last.drawn, [end]]) {
          drawn.push(...one);
        }
      }
    }
    const ends = steps
      .filter((step) => !needed.has(step.name ?? ""))
      .map((step) => exit(`${prefix}${step.name}`));
    return { drawn, ends };
  };
  return {
    steps: expand(spec.steps ?? [], "", []).drawn,
    last: expand(spec.finally ?? [], "", []).drawn,
  };
}

/** Returns what a workflow that is a step has inside. */
export function innerOf(spec: WorkflowSpec | undefined, steps: readonly StepStatus[]): Inner {
  const statuses = new Map(steps.map((step) => [step.name ?? "", step]));
  const states = new Map(steps.map((step) => [step.name ?? "", word(step.state, "STEP_STATE_")]));
  const links = new Map(
    steps.map(({ name = "", lastTask, lastWorkflow }) => [name, linkTo(lastTask, lastWorkflow)]),
  );
  return { steps: spec?.steps ?? [], last: spec?.finally ?? [], states, statuses, links, leftOut: 0 };
}

const linkTo = (task: string | undefined, workflow?: string): Link => ({
  ...(task && { task }),
  ...(workflow && { workflow }),
});

/** Item of a list, with what it has become. */
export interface Item {
  number: number;
  state: string;
  link?: Link;
}

/** States of which items are shown first. */
const FIRST = ["failed", "input required", "running"];

/** Returns what a step with a list has inside: what has failed and what runs first, if there are too many. */
export function innerOfItems(items: readonly Item[], total: number): Inner {
  const rank = ({ state }: Item) => (FIRST.includes(state) ? FIRST.indexOf(state) : FIRST.length);
  // The newest of each number comes first.
  const known = new Map<number, Item>();
  for (const item of items) {
    if (!known.has(item.number)) {
      known.set(item.number, item);
    }
  }
  for (let number = 0; number < total && known.size < MAX_ITEMS; number += 1) {
    if (!known.has(number)) {
      known.set(number, { number, state: "waiting" });
    }
  }
  const shown = [...known.values()]
    .sort((one, other) => rank(one) - rank(other) || one.number - other.number)
    .slice(0, MAX_ITEMS)
    .sort((one, other) => one.number - other.number);
  const name = ({ number }: Item) => `#${number}`;
  return {
    steps: shown.map((item) => ({ name: name(item) })),
    last: [],
    states: new Map(shown.map((item) => [name(item), item.state])),
    statuses: new Map(),
    links: new Map(shown.flatMap((item) => (item.link ? [[name(item), item.link]] : []))),
    leftOut: Math.max(0, Math.max(total, known.size) - shown.length),
  };
}

/** Returns the items of a step that are tasks, of those of the last round. */
export function itemsOfTasks(tasks: readonly Task[], step: string, round: number): Item[] {
  return tasks
    .filter((task) => task.step?.step === step && !task.step.compensates && (task.step.round ?? 0) === round)
    .map(({ step, status, uid }) => ({
      number: step?.item ?? 0,
      state: word(status?.state, "TASK_STATE_"),
      link: linkTo(uid),
    }));
}

/** Returns the items of a step that are workflows, of those below a workflow, the newest first: as many as it has now, in their order. */
export function itemsOfWorkflows(workflows: readonly Workflow[], step: string, total: number): Item[] {
  return workflows
    .filter((workflow) => workflow.parentStep === step)
    .slice(0, total)
    .toReversed()
    .map(({ status, uid }, number) => ({
      number,
      state: word(status?.state, "WORKFLOW_STATE_"),
      link: linkTo(undefined, uid),
    }));
}

/** Counts of a workflow that is a step, in words. */
export function countOfWorkflow(counts: NonNullable<Workflow["status"]>["counts"] | undefined): string {
  return counts?.total ? `${counts.succeeded ?? 0} of ${counts.total}` : "";
}

/** Returns what a group has, in words: items that have succeeded, or steps of its workflow. */
export function countOfStep(
  step: Step | undefined,
  status: StepStatus | undefined,
  workflow: string | undefined,
): string {
  if (!step || !isGroup(step)) {
    return "";
  }
  if (step.forEach) {
    return status?.tasksTotal ? `${status.tasksSucceeded ?? 0} of ${status.tasksTotal}` : "";
  }
  const known = (step.workflow?.spec?.steps?.length ?? 0) + (step.workflow?.spec?.finally?.length ?? 0);
  const isBegun = Boolean(status?.lastWorkflow);
  return workflow || (known > 0 && !isBegun ? `0 of ${known}` : "");
}

/** Returns how much of an open workflow is done, in words; empty for a group that has none. */
export function countOfInner(inner: Inner | undefined): string {
  const all = [...(inner?.statuses.values() ?? [])];
  const done = all.filter((step) => step.state === "STEP_STATE_SUCCEEDED").length;
  return all.length > 0 ? `${done} of ${all.length}` : "";
}

/** Returns the steps of a specification by name, with its finally-steps. */
export const stepsOf = (spec: WorkflowSpec | undefined): ReadonlyMap<string, Step> =>
  new Map([...(spec?.steps ?? []), ...(spec?.finally ?? [])].map((step) => [step.name ?? "", step]));

/** Returns the state of a step of a workflow or of a group, in words; that of its end and before its finally-steps is its own. */
export function stateAt(
  path: string,
  steps: ReadonlyMap<string, StepStatus>,
  inner: ReadonlyMap<string, Inner>,
): string {
  const { group, name } = splitPath(path.replace(/\/+$/, ""));
  const found = group ? inner.get(group)?.states.get(name) : word(steps.get(name)?.state, "STEP_STATE_");
  return found || "waiting";
}
