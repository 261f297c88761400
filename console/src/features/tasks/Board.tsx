import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useRef } from "react";
import { withChange } from "../../api/changes";
import { get } from "../../api/client";
import { TASKS, useFeed } from "../../api/feed";
import { isIn, placeOf } from "../../api/format";
import { refresh } from "../../api/refresh";
import type { Task } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { useReadEvery } from "../../api/useReadEvery";
import { Age } from "../../components/Age";
import { More } from "../../components/More";
import { Problem } from "../../components/Problem";
import { State } from "../../components/State";
import { asRead, moved, type Page } from "./column";
import { READ_INTERVAL } from "./deleted";
import { filters, isFiltered, type TaskSearch } from "./filters";
import { titleOf } from "./title";

const COLUMNS = [
  { name: "Waiting", states: ["PENDING", "QUEUED"] },
  { name: "Running", states: ["ASSIGNED", "RUNNING"] },
  { name: "Needs a person", states: ["INPUT_REQUIRED"] },
  { name: "Succeeded", states: ["SUCCEEDED"] },
  { name: "Failed", states: ["FAILED"] },
  { name: "Cancelled", states: ["CANCELLED"] },
];
/** Estimated height of a card, in pixels: the real one is measured. */
const CARD = 76;

/** Tasks as cards, by their state; a column reads more of them on a click, and draws those in view. */
export function Board({ namespace, search }: { namespace: string; search: TaskSearch }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reached by keyboard
    <section className="board" aria-label="Board" tabIndex={0}>
      {COLUMNS.filter(({ states }) => !search.state || states.includes(search.state)).map((column) => (
        <Column key={column.name} namespace={namespace} search={search} {...column} />
      ))}
    </section>
  );
}

function Column({
  name,
  states,
  namespace,
  search,
}: {
  name: string;
  states: string[];
  namespace: string;
  search: TaskSearch;
}) {
  const cache = useQueryClient();
  const box = useRef<HTMLElement>(null);
  const { state: _state, ...rest } = search;
  const key = ["board", namespace, name, rest];
  const isHere = (task: Task) => states.includes((task.status?.state ?? "").replace("TASK_STATE_", ""));
  const found = useInfiniteQuery({
    queryKey: key,
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) => {
      const wanted = states.map((state) => `&filter.states=TASK_STATE_${state}`).join("");
      const page = pageParam ? `&pageToken=${encodeURIComponent(pageParam)}` : "";
      const path = `namespaces/${namespace}/tasks${filters(rest)}${wanted}${page}`;
      const read = TASKS.changes.during(() => get<Page>(path, signal), withChange);
      return read.then((page) => asRead(page, isHere));
    },
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const reload = useCoalesced(() => void refresh(cache, key));
  useReadEvery(READ_INTERVAL, reload);
  const tasks = found.data?.pages.flatMap((page) => page.tasks ?? []) ?? [];
  useFeed({
    reload,
    receive: ({ task }) => {
      const data = cache.getQueryData<typeof found.data>(key);
      if (!task || !isIn(namespace, task.name) || (!data && !isHere(task))) {
        return;
      }
      const pages = data && moved(data.pages, task, { isHere: isHere(task), isFiltered: isFiltered(rest) });
      // A reading that is under way may lack a task that enters.
      if (!pages || (pages !== data.pages && cache.isFetching({ queryKey: key }) > 0)) {
        reload();
      } else if (pages !== data.pages) {
        cache.setQueryData<typeof found.data>(key, (before) => before && { ...before, pages });
      }
    },
  });
  const rows = useVirtualizer({
    count: tasks.length,
    getScrollElement: () => box.current,
    estimateSize: () => CARD,
    overscan: 8,
  });
  return (
    <section className="column" aria-label={name}>
      <h2>
        {name} <span className="quiet">{`${tasks.length}${found.hasNextPage ? "+" : ""}`}</span>
      </h2>
      <Problem error={found.error} />
      {found.isPending && <p role="status">Loading…</p>}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard */}
      <section className="cards" ref={box} tabIndex={0} aria-label={`Tasks: ${name}`}>
        <div className="all" style={{ height: rows.getTotalSize() }}>
          {rows.getVirtualItems().map((row) => {
            const task = tasks[row.index];
            return (
              task && (
                <article
                  key={task.name}
                  ref={rows.measureElement}
                  data-index={row.index}
                  className="card"
                  style={{ transform: `translateY(${row.start}px)` }}
                >
                  <Link to="/tasks/$namespace/$id" params={placeOf(task.name)}>
                    {titleOf(task)}
                  </Link>
                  <p className="quiet">
                    {states.length > 1 && <State value={task.status?.state} prefix="TASK_STATE_" />}{" "}
                    {task.spec?.target?.agent} <Age from={task.createTime} />
                  </p>
                </article>
              )
            );
          })}
        </div>
      </section>
      <More of={found} what={name.toLowerCase()} />
    </section>
  );
}
