import { visibleLine } from "../../api/plain";
import type { Task } from "../../api/types";
import { hasFailedChecks } from "../tasks/replay";
import { titleOf } from "../tasks/title";
import type { Approval } from "../workflows/approvals";
import { nameOf } from "../workflows/name";

/** Something that waits for a person. */
export interface Notice {
  /** The same for as long as it waits. */
  key: string;
  title: string;
  text: string;
  /** Page of the task or workflow. */
  path: string;
}

/** Characters of a text: notifications show few. */
const LONGEST = 200;
/** Notifications of one change: of more there is one for all of them. */
const MOST = 3;

const short = (text: string | undefined) => visibleLine(text).slice(0, LONGEST);

const pathOf = (name: string | undefined) => {
  const [, namespace, kind, id] = name?.split("/") ?? [];
  return `/${kind}/${namespace}/${id}`;
};

/** Returns what waits for a person, each by itself. */
export function noticesOf(tasks: Task[], approvals: Approval[]): Notice[] {
  return [
    ...tasks.flatMap((task) =>
      (task.status?.pendingInput ?? []).map((request) => ({
        key: `${task.name} ${request.requestId}`,
        title: titleOf(task),
        text:
          request.kind === "INPUT_KIND_PERMISSION"
            ? `May it use ${short(request.tool)}?`
            : short(request.prompt),
        path: pathOf(task.name),
      })),
    ),
    ...tasks
      .filter((task) => task.status?.attention)
      .map((task) => ({
        key: `${task.name} attention`,
        title: titleOf(task),
        text: `It keeps failing: ${short(task.status?.attention?.lastFailure?.message)}`,
        path: pathOf(task.name),
      })),
    ...tasks.filter(hasFailedChecks).map((task) => ({
      key: `${task.name} checks`,
      title: titleOf(task),
      text: short(task.status?.failure?.message),
      path: pathOf(task.name),
    })),
    ...approvals.flatMap(({ workflow, steps }) =>
      steps.map((step) => ({
        key: `${workflow.name} ${step.name} ${step.round}`,
        title: nameOf(workflow),
        text: short(step.prompt),
        path: pathOf(workflow.name),
      })),
    ),
  ];
}

/** Returns the keys of what is known to wait, and of what was known before: what a part of a read lacks may wait still. */
export function knownKeys(before: Iterable<string>, now: Notice[]): ReadonlySet<string> {
  return new Set([...before, ...now.map(({ key }) => key)]);
}

/** Returns what is new, together if it is a lot. */
export function newNotices(before: ReadonlySet<string>, now: Notice[]): Notice[] {
  const fresh = now.filter(({ key }) => !before.has(key));
  const [first] = fresh;
  return first && fresh.length > MOST
    ? [{ key: first.key, title: "Rota", text: `${fresh.length} wait for a person`, path: "/inbox" }]
    : fresh;
}
