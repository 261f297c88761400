import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useMemo, useRef, useState } from "react";
import { get, patch, post } from "../../api/client";
import { dollars, id, query } from "../../api/format";
import type { Task, WatchTasksResponse } from "../../api/types";
import { useStream } from "../../api/useStream";
import { Age } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Problem } from "../../components/Problem";
import { Scroll } from "../../components/Scroll";
import { State } from "../../components/State";
import { useRows } from "../../components/useRows";
import { useNamespace } from "../../namespace";
import { titleOf } from "./title";

export interface TaskSearch {
  state?: string | undefined;
  agent?: string | undefined;
  owner?: string | undefined;
  alias?: string | undefined;
  label?: string | undefined;
}

interface Page {
  tasks?: Task[];
  nextPageToken?: string;
}

const STATES = [
  "PENDING",
  "QUEUED",
  "ASSIGNED",
  "RUNNING",
  "INPUT_REQUIRED",
  "SUCCEEDED",
  "FAILED",
  "CANCELLED",
];
const ENDED = ["TASK_STATE_SUCCEEDED", "TASK_STATE_FAILED", "TASK_STATE_CANCELLED"];

/** The actions on selected tasks, with the tasks that each applies to. */
const ACTIONS = [
  {
    name: "Cancel",
    fits: (task: Task) => !isEnded(task),
    act: (name: string) => post(`${name}:cancel`, { reason: "by a person" }),
  },
  {
    name: "Suspend",
    fits: (task: Task) => !isEnded(task) && task.desiredState !== "DESIRED_STATE_SUSPENDED",
    act: (name: string) => desire(name, "DESIRED_STATE_SUSPENDED"),
  },
  {
    name: "Resume",
    fits: (task: Task) => !isEnded(task) && task.desiredState === "DESIRED_STATE_SUSPENDED",
    act: (name: string) => desire(name, "DESIRED_STATE_RUN"),
  },
  {
    name: "Retry",
    fits: isEnded,
    act: (name: string) => post(`${name}:retry`, { idempotencyKey: crypto.randomUUID() }),
  },
];

function isEnded(task: Task): boolean {
  return ENDED.includes(task.status?.state ?? "");
}

function desire(name: string, state: string): Promise<unknown> {
  return patch(`${name}?updateMask=desiredState`, { name, desiredState: state });
}

function filters(search: TaskSearch): string {
  const [key, value] = (search.label ?? "").split("=");
  return query({
    pageSize: 100,
    "filter.states": search.state ? `TASK_STATE_${search.state}` : undefined,
    "filter.agent": search.agent,
    "filter.owner": search.owner,
    "filter.alias": search.alias,
    [`filter.labels[${key}]`]: key ? (value ?? "") : undefined,
  });
}

/** All tasks of a namespace, filtered by the server. Rows change where they are; new tasks wait for a click. */
export function TasksPage() {
  const namespace = useNamespace();
  const search = useSearch({ from: "/tasks" });
  const navigate = useNavigate({ from: "/tasks" });
  const cache = useQueryClient();
  const [unseen, setUnseen] = useState(0);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [problem, setProblem] = useState<unknown>();
  const position = useRef("");
  const key = useMemo(() => ["tasks", namespace, search], [namespace, search]);
  const found = useInfiniteQuery({
    queryKey: key,
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) => {
      const page = pageParam ? `&pageToken=${encodeURIComponent(pageParam)}` : "";
      return get<Page>(`namespaces/${namespace}/tasks${filters(search)}${page}`, signal);
    },
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const tasks = useMemo(() => found.data?.pages.flatMap((page) => page.tasks ?? []) ?? [], [found.data]);
  const reload = useCallback(() => {
    setUnseen(0);
    void cache.invalidateQueries({ queryKey: ["tasks", namespace] });
  }, [cache, namespace]);
  const link = useStream<WatchTasksResponse>(
    namespace,
    () => `namespaces/${namespace}/tasks:watch${query({ statesOnly: "true", token: position.current })}`,
    (message) => {
      position.current = message.token || position.current;
      if (message.resync) {
        reload();
      }
      const task = message.task;
      if (!task) {
        return;
      }
      let known = false;
      cache.setQueryData<typeof found.data>(key, (data) => {
        const pages = data?.pages.map((page) => {
          const index = page.tasks?.findIndex((one) => one.name === task.name) ?? -1;
          if (index < 0) {
            return page;
          }
          known = true;
          return { ...page, tasks: page.tasks?.with(index, task) ?? [] };
        });
        return data && pages && known ? { ...data, pages } : data;
      });
      if (!known && message.events?.some((event) => event.state?.reason === "created")) {
        setUnseen((count) => count + 1);
      }
    },
    {
      opened: () => {
        if (!position.current) {
          reload();
        }
      },
    },
  );
  const toggle = useCallback((name: string) => {
    setSelected((before) => {
      const after = new Set(before);
      if (!after.delete(name)) {
        after.add(name);
      }
      return after;
    });
  }, []);
  const open = useCallback(
    (index: number) => {
      const name = tasks[index]?.name?.split("/");
      if (name) {
        void navigate({
          to: "/tasks/$namespace/$id",
          params: { namespace: name[1] ?? "", id: name[3] ?? "" },
        });
      }
    },
    [tasks, navigate],
  );
  const row = useRows(tasks.length, open, (index) => toggle(tasks[index]?.name ?? ""));
  const chosen = tasks.filter((task) => selected.has(task.name ?? ""));
  const act = async (act: (name: string) => Promise<unknown>, on: Task[]) => {
    setProblem(undefined);
    const done = await Promise.allSettled(on.map((task) => act(task.name ?? "")));
    setProblem(done.find((one) => one.status === "rejected")?.reason);
    setSelected(new Set());
    reload();
  };
  return (
    <>
      <h1>Tasks</h1>
      <form
        className="bar"
        key={JSON.stringify(search)}
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const value = (name: string) => String(form.get(name) ?? "").trim() || undefined;
          void navigate({
            search: {
              state: value("state"),
              agent: value("agent"),
              owner: value("owner"),
              alias: value("alias"),
              label: value("label"),
            },
          });
        }}
      >
        <label>
          State
          <select name="state" defaultValue={search.state ?? ""}>
            <option value="">any</option>
            {STATES.map((state) => (
              <option key={state} value={state}>
                {state.toLowerCase().replace("_", " ")}
              </option>
            ))}
          </select>
        </label>
        <label>
          Agent
          <input name="agent" defaultValue={search.agent} size={10} />
        </label>
        <label>
          Name
          <input name="alias" defaultValue={search.alias} size={12} />
        </label>
        <label>
          Owner
          <input name="owner" defaultValue={search.owner} size={10} />
        </label>
        <label>
          Label
          <input name="label" defaultValue={search.label} placeholder="key=value" size={12} />
        </label>
        <button type="submit">Filter</button>
        <button type="button" onClick={() => void navigate({ search: {} })}>
          Clear
        </button>
      </form>
      <div className="bar">
        {ACTIONS.map(({ name, fits, act: one }) => {
          const on = chosen.filter(fits);
          return (
            <Confirm
              key={name}
              label={name}
              disabled={on.length === 0}
              question={`${name} ${on.length} ${on.length === 1 ? "task" : "tasks"}?`}
              onConfirm={() => void act(one, on)}
            />
          );
        })}
        <span className="quiet" role="status">
          {chosen.length > 0 && `${chosen.length} selected. `}
          {link === "lost" && "Connection lost, trying again. "}
        </span>
        {unseen > 0 && (
          <button type="button" onClick={reload}>
            Show {unseen} new
          </button>
        )}
      </div>
      <Problem error={problem ?? found.error} />
      <Scroll label="Tasks">
        <table>
          <thead>
            <tr>
              <th>
                <span className="hidden">Selected</span>
              </th>
              <th>State</th>
              <th>Task</th>
              <th className="optional">Agent</th>
              <th>Age</th>
              <th className="optional">Cost</th>
            </tr>
          </thead>
          <tbody>
            {tasks.map((task, index) => (
              <tr key={task.name} aria-current={index === row}>
                <td>
                  <input
                    type="checkbox"
                    checked={selected.has(task.name ?? "")}
                    onChange={() => toggle(task.name ?? "")}
                    aria-label={`Select ${titleOf(task)}`}
                  />
                </td>
                <td>
                  <State value={task.status?.state} prefix="TASK_STATE_" />
                </td>
                <td className="name">
                  <Link
                    to="/tasks/$namespace/$id"
                    params={{ namespace: task.name?.split("/")[1] ?? "", id: id(task.name) }}
                  >
                    {titleOf(task)}
                  </Link>
                </td>
                <td className="optional">{task.spec?.target?.agent}</td>
                <td>
                  <Age from={task.createTime} />
                </td>
                <td className="optional">{dollars(task.status?.usage?.costMicroUsd)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {found.isPending && <p role="status">Loading…</p>}
      {found.isSuccess && tasks.length === 0 && <p>No task matches. Create one with `rota run`.</p>}
      {found.hasNextPage && (
        <button type="button" disabled={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>
          Show more
        </button>
      )}
    </>
  );
}
