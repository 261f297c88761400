import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useMemo, useRef, useState } from "react";
import { ActionKeys } from "../../api/actionKeys";
import { withChange } from "../../api/changes";
import { forEach } from "../../api/each";
import { TASKS, useFeed } from "../../api/feed";
import { counted, isIn, placeOf } from "../../api/format";
import { refresh } from "../../api/refresh";
import type { Task } from "../../api/types";
import { troubleOf } from "../../api/useStream";
import { useMayAct } from "../../components/Acting";
import { Confirm } from "../../components/Confirm";
import { Heading } from "../../components/Heading";
import { Problem } from "../../components/Problem";
import { hidden, optional, Table } from "../../components/Table";
import { useRows } from "../../components/useRows";
import { useNamespace } from "../../namespace";
import { ACTIONS, type Action, NORMAL } from "./actions";
import { Board } from "./Board";
import { ChangeAll } from "./ChangeAll";
import { without } from "./deleted";
import { searchOf } from "./filters";
import { listOf } from "./listEnd";
import { MoreFilters } from "./MoreFilters";
import { readPage } from "./page";
import { isSettled, repeatable } from "./settle";
import { TaskRow } from "./TaskRow";
import { useDeletedTasks } from "./useDeletedTasks";
import { useNewTasks } from "./useNewTasks";

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
/** All tasks of a namespace, filtered by the server. Rows change where they are; new tasks wait for a click. */
export function TasksPage() {
  const namespace = useNamespace();
  const search = useSearch({ from: "/tasks" });
  const navigate = useNavigate({ from: "/tasks" });
  const cache = useQueryClient();
  const mayAct = useMayAct();
  const [selected, setSelected] = useState<ReadonlyMap<string, Task>>(new Map());
  const [problem, setProblem] = useState<unknown>();
  const key = useMemo(() => ["tasks", namespace, search], [namespace, search]);
  const found = useInfiniteQuery({
    queryKey: key,
    initialPageParam: "",
    enabled: search.view !== "board",
    queryFn: ({ pageParam, signal }) =>
      TASKS.changes.during(() => readPage(namespace, search, pageParam, signal), withChange),
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const listed = useMemo(() => listOf(found.data?.pages ?? []), [found.data]);
  const { tasks } = listed;
  // What was selected of another list is out of sight: no action may reach it.
  const list = JSON.stringify(key);
  const shownList = useRef(list);
  if (shownList.current !== list) {
    shownList.current = list;
    setSelected(new Map());
    setProblem(undefined);
  }
  const { hasNextPage } = found;
  const unseen = useNewTasks(list, namespace, search, listed);
  const resetUnseen = unseen.reset;
  const snippets = Object.assign({}, ...(found.data?.pages.map((page) => page.snippets) ?? [])) as Record<
    string,
    string
  >;
  const behind = found.data?.pages.at(-1)?.behind ?? 0;
  const reload = useCallback(() => {
    resetUnseen();
    void refresh(cache, ["tasks", namespace]);
  }, [cache, namespace, resetUnseen]);
  const link = useFeed({
    reload,
    receive: ({ task, events }) => {
      if (!task || !isIn(namespace, task.name)) {
        return;
      }
      if (tasks.some((one) => one.name === task.name)) {
        cache.setQueryData<typeof found.data>(
          key,
          (data) => data && { ...data, pages: data.pages.map((page) => withChange(page, { task })) },
        );
      } else {
        unseen.note(task, events);
      }
    },
  });
  useDeletedTasks(list, namespace, search, listed, (deleted) => {
    cache.setQueryData<typeof found.data>(
      key,
      (data) => data && { ...data, pages: data.pages.map((page) => without(page, deleted)) },
    );
    setSelected((before) => new Map([...before].filter(([name]) => !deleted.has(name))));
  });
  const toggle = useCallback((task: Task) => {
    setSelected((before) => {
      const after = new Map(before);
      if (!after.delete(task.name ?? "")) {
        after.set(task.name ?? "", task);
      }
      return after;
    });
  }, []);
  const open = useCallback(
    ({ name }: Task) => {
      void navigate({ to: "/tasks/$namespace/$id", params: placeOf(name) });
    },
    [navigate],
  );
  const current = useRows(tasks, open, toggle);
  // Those that are listed as they are now.
  const latest = new Map(tasks.map((task) => [task.name, task]));
  // As they were when the question was asked: what changes meanwhile, the person has not seen.
  const asked = useRef<Task[]>([]);
  const chosen = [...selected.values()].map((task) => latest.get(task.name) ?? task);
  const [keys] = useState(() => new ActionKeys());
  const act = async (action: Action, on: Task[], fields: FormData) => {
    setProblem(undefined);
    const seen = new Map(asked.current.map((task) => [task.name, task]));
    // Those of a batch may end differently.
    const failed = await forEach(on, (task) => {
      const { name = "" } = task;
      const as = { asked: seen.get(name) ?? task, selected: selected.get(name) ?? task, fields };
      return keys.during(`${action.name} ${name}`, (key) => action.act({ ...as, key }));
    });
    if (shownList.current === list) {
      // Those that are left can be tried again, as they were when they were selected.
      const left = new Set(repeatable(failed).map(({ name }) => name));
      setSelected((before) => new Map([...before].filter(([name]) => left.has(name))));
    }
    reload();
    if (failed.length > 0) {
      const reasons = new Set(failed.map(({ why }) => (why instanceof Error ? why.message : String(why))));
      const problem = new Error(
        `${failed.length} of ${on.length} failed: ${[...reasons].slice(0, 5).join("; ")}`,
      );
      setProblem(problem);
      throw problem;
    }
  };
  const table = (
    <>
      <div className="bar">
        {!search.text && <ChangeAll key={list} namespace={namespace} search={search} normal={NORMAL} />}
        {ACTIONS.map((action) => {
          const { name, fits, fields } = action;
          const on = chosen.filter(fits);
          const again = on.filter(({ name = "" }) => isSettled(selected.get(name) ?? {})).length;
          return (
            <Confirm
              key={name}
              label={name}
              disabled={on.length === 0}
              question={`${name}${fields ? " of" : ""} ${counted(on.length, "task")}?${again > 0 ? ` Settled already: ${again}.` : ""}`}
              onOpen={() => {
                asked.current = on;
              }}
              onConfirm={(given) => act(action, on, given)}
            >
              {fields}
            </Confirm>
          );
        })}
        <span className="quiet" role="status">
          {chosen.length > 0 && `${chosen.length} selected. `}
          {behind > 0 && "The newest changes are not searched yet. "}
          {troubleOf(link)}
        </span>
        {unseen.count && (
          <button type="button" onClick={reload}>
            Show {unseen.count} new
          </button>
        )}
      </div>
      <Problem error={problem ?? found.error ?? (link.state === "ended" ? link.error : undefined)} />
      <Table
        label="Tasks"
        heads={[
          mayAct && hidden("Selected"),
          "State",
          "Task",
          optional("Agent"),
          optional("Priority"),
          "Age",
          optional("Cost"),
        ]}
      >
        {tasks.map((task) => (
          <TaskRow
            key={task.name}
            task={task}
            snippet={snippets[task.name ?? ""]}
            isCurrent={task.name === current}
            isSelected={selected.has(task.name ?? "")}
            toggle={toggle}
          />
        ))}
      </Table>
      {found.isPending && <p role="status">Loading…</p>}
      {found.isSuccess && tasks.length === 0 && <p>No task matches. Create one with `rota run`.</p>}
      {hasNextPage && (
        <button type="button" disabled={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>
          Show more
        </button>
      )}
    </>
  );
  return (
    <>
      <Heading what="Tasks" />
      <form
        className="bar"
        key={JSON.stringify(search)}
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          void navigate({ search: searchOf({ ...Object.fromEntries(form), view: search.view }) });
        }}
      >
        {search.view !== "board" && (
          <label>
            Text
            <input name="text" type="search" defaultValue={search.text} maxLength={1024} size={20} />
          </label>
        )}
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
        <MoreFilters search={search} />
        <button type="submit">Filter</button>
        <button type="button" onClick={() => void navigate({ search: { view: search.view } })}>
          Clear
        </button>
      </form>
      <nav className="choices" aria-label="View">
        <Link
          from="/tasks"
          to="/tasks"
          search={{ ...search, view: undefined }}
          aria-current={search.view ? undefined : "page"}
        >
          Table
        </Link>
        <Link
          from="/tasks"
          to="/tasks"
          search={{ ...search, text: undefined, view: "board" }}
          aria-current={search.view ? "page" : undefined}
        >
          Board
        </Link>
      </nav>
      {search.view === "board" ? <Board namespace={namespace} search={search} /> : table}
    </>
  );
}
