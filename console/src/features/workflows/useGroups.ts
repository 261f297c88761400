import { keepPreviousData, type QueryClient, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useRef } from "react";
import { get } from "../../api/client";
import { placeOf, query } from "../../api/format";
import type { StepStatus, Task, Workflow, WorkflowSpec } from "../../api/types";
import {
  countOfInner,
  countOfStep,
  countOfWorkflow,
  type Groups,
  type Inner,
  innerOf,
  innerOfItems,
  itemsOfTasks,
  itemsOfWorkflows,
  NO_GROUPS,
  type Step,
  shapeOf,
  splitPath,
  stateAt,
  stepsOf,
} from "./groups";

/** The stream of a workflow has nothing of what is inside of its steps: that is read again while it runs. */
const INTERVAL = 2000;
/** Entries of a page, and pages of steps and of tasks that are read. */
const PAGE = 1000;
const STEP_PAGES = 10;
const TASK_PAGES = 3;
/** Time for which a specification is taken for the same, in milliseconds: steps are rarely added. */
const SPEC_AGE = 30_000;

interface Scope {
  /** Id of the workflow. */
  id: string;
  spec: WorkflowSpec;
  steps: ReadonlyMap<string, StepStatus>;
}

async function readAll<T>(
  path: string,
  field: string,
  filter: Record<string, string>,
  pages: number,
  signal: AbortSignal,
): Promise<T[]> {
  const all: T[] = [];
  let pageToken = "";
  for (let page = 0; page < pages; page += 1) {
    const found = await get<Record<string, unknown>>(
      `${path}${query({ ...filter, pageSize: PAGE, pageToken })}`,
      signal,
    );
    for (const one of (found[field] as T[] | undefined) ?? []) {
      all.push(one);
    }
    pageToken = String(found.nextPageToken ?? "");
    if (!pageToken) {
      break;
    }
  }
  return all;
}

/** Reads what a step has inside. `undefined` if it has not begun, and its specification does not name what it will have. */
async function readInner(
  cache: QueryClient,
  parent: string,
  { id, steps }: Scope,
  step: Step,
  signal: AbortSignal,
): Promise<{ inner: Inner; scope?: Scope } | undefined> {
  const name = step.name ?? "";
  const status = steps.get(name);
  const total = status?.tasksTotal ?? 0;
  if (step.forEach && (step.workflow || step.merge)) {
    const filter = { "filter.parentWorkflow": id };
    const all = await readAll<Workflow>(`${parent}/workflows`, "workflows", filter, TASK_PAGES, signal);
    return { inner: innerOfItems(itemsOfWorkflows(all, name, total), total) };
  }
  if (step.forEach) {
    const filter = { "filter.workflow": id };
    const all = await readAll<Task>(`${parent}/tasks`, "tasks", filter, TASK_PAGES, signal);
    return { inner: innerOfItems(itemsOfTasks(all, name, status?.round ?? 0), total) };
  }
  if (!status?.lastWorkflow) {
    const spec = step.workflow?.spec;
    return spec && { inner: innerOf(spec, []), scope: { id: "", spec, steps: new Map() } };
  }
  const workflow = `${parent}/workflows/${status.lastWorkflow}`;
  const [found, all] = await Promise.all([
    cache.fetchQuery({
      queryKey: ["workflow", workflow],
      queryFn: () => get<Workflow>(workflow, signal),
      staleTime: SPEC_AGE,
    }),
    readAll<StepStatus>(`${workflow}/steps`, "steps", {}, STEP_PAGES, signal),
  ]);
  const inner = innerOf(found.spec, all);
  return { inner, scope: { id: status.lastWorkflow, spec: found.spec ?? {}, steps: inner.statuses } };
}

/** Reads what is inside of the groups that are open: those outside before those inside. */
async function readGroups(
  cache: QueryClient,
  parent: string,
  root: Scope,
  open: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Inner>> {
  const scopes = new Map([["", root]]);
  const all = new Map<string, Inner>();
  for (const path of open) {
    const { group, name } = splitPath(path);
    const scope = scopes.get(group);
    const step = scope && stepsOf(scope.spec).get(name);
    const found = step && (await readInner(cache, parent, scope, step, signal));
    if (found) {
      all.set(path, found.inner);
      if (found.scope) {
        scopes.set(path, found.scope);
      }
    }
  }
  return all;
}

interface Of {
  /** Name of the workflow, as it is in the address. */
  name: string;
  workflow: Workflow | undefined;
  steps: ReadonlyMap<string, StepStatus>;
  open: readonly string[];
  toggle: (path: string) => void;
  isEnded: boolean;
}

/** What is inside of the open groups of a workflow, and how much of its workflows is done; read again while it runs. */
export function useGroups({ name, workflow, steps, open, toggle, isEnded }: Of): [Groups, unknown] {
  const cache = useQueryClient();
  // The name may have an alias in place of the id, of which filters know nothing.
  const { spec, uid: id = "" } = workflow ?? {};
  const parent = `namespaces/${placeOf(name).namespace}`;
  const latest = useRef(steps);
  latest.current = steps;
  const polled = {
    refetchInterval: isEnded ? (false as const) : INTERVAL,
    placeholderData: keepPreviousData,
  };
  // Steps arrive after the workflow: what they have begun is read again even if it has ended.
  const begun = open.map((path) => {
    const { state, round, tasksTotal, lastWorkflow } = steps.get(path) ?? {};
    return `${path} ${state} ${round} ${tasksTotal} ${lastWorkflow}`;
  });
  const groups = useQuery({
    ...polled,
    queryKey: ["groups", name, begun.join(","), isEnded],
    enabled: spec !== undefined && open.length > 0,
    queryFn: ({ signal }) =>
      readGroups(cache, parent, { id, spec: spec ?? {}, steps: latest.current }, open, signal),
  });
  const byName = useMemo(() => stepsOf(spec), [spec]);
  const hasWorkflows = useMemo(
    () => [...byName.values()].some((step) => (step.workflow || step.merge) && !step.forEach),
    [byName],
  );
  const children = useQuery({
    ...polled,
    queryKey: ["workflows of", name, isEnded],
    enabled: hasWorkflows,
    queryFn: async ({ signal }) => {
      const filter = { "filter.parentWorkflow": id };
      const found = await readAll<Workflow>(`${parent}/workflows`, "workflows", filter, 1, signal);
      // The newest of each step comes first.
      return new Map(
        found
          .toReversed()
          .map(({ parentStep = "", status }) => [parentStep, countOfWorkflow(status?.counts)] as const),
      );
    },
  });
  const inner = open.length > 0 ? (groups.data ?? NO_GROUPS) : NO_GROUPS;
  // What is read again is laid out again only if there are other steps.
  const shown = open.map((path) => [path, ...namesOf(inner.get(path))].join(" ")).join(",");
  // biome-ignore lint/correctness/useExhaustiveDependencies: states change far more often than steps
  const shape = useMemo(() => shapeOf(spec ?? {}, open, inner), [spec, shown]);
  const countOf = (path: string) => {
    const { group, name } = splitPath(path);
    if (!group) {
      return countOfStep(byName.get(name), steps.get(name), children.data?.get(name));
    }
    const within = inner.get(group);
    return (
      countOfInner(inner.get(path)) ||
      countOfStep(stepIn(within, name), within?.statuses.get(name), undefined)
    );
  };
  const linkOf = (path: string) => {
    const { group, name } = splitPath(path);
    return inner.get(group)?.links.get(name);
  };
  const stateOf = (path: string) => stateAt(path, steps, inner);
  const isRead = groups.isSuccess && !groups.isPlaceholderData;
  return [{ shape, open, inner, isRead, stateOf, countOf, linkOf, toggle }, groups.error ?? children.error];
}

const stepIn = (inner: Inner | undefined, name: string) =>
  inner && stepsOf({ steps: inner.steps, finally: inner.last }).get(name);

/** Names of the steps of a group, or a sign that it was not read yet. */
const namesOf = (inner: Inner | undefined) =>
  inner ? [...inner.steps, ...inner.last].map((step) => step.name) : ["?"];
