import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { get } from "../../api/client";
import { query } from "../../api/format";
import { zone } from "../../api/time";
import type { MetricsHistory } from "../../api/types";
import { Age, Moment } from "../../components/Age";
import { Heading } from "../../components/Heading";
import { lazyPart } from "../../components/lazy";
import { Problem } from "../../components/Problem";
import { Table } from "../../components/Table";
import { useNamespace } from "../../namespace";
import { GRAPHS, HOURS, seconds } from "./series";

/** The library that draws is loaded with the first chart. */
const Charts = lazyPart(() => import("./Charts"));

/** The control plane reads its numbers once a minute, and pushes none. */
const INTERVAL = 60_000;

export interface MetricsSearch {
  hours?: number | undefined;
  agent?: string | undefined;
  all?: boolean | undefined;
  view?: "table" | undefined;
}

const nameOf = (hours: number) =>
  hours === 1 ? "1 hour" : hours < 48 ? `${hours} hours` : `${hours / 24} days`;

/** What was done and what waited in the past: charts, or a table with the same values. */
export function MetricsPage() {
  const namespace = useNamespace();
  const search = useSearch({ from: "/metrics" });
  const navigate = useNavigate();
  const { hours = 1, agent, all, view } = search;
  const found = useQuery({
    queryKey: ["metrics", namespace, hours, agent, all],
    refetchInterval: INTERVAL,
    queryFn: async ({ signal }) => {
      const end = Date.now();
      const start = end - hours * 3_600_000;
      const times = { startTime: new Date(start).toISOString(), endTime: new Date(end).toISOString() };
      const path = `namespaces/${all ? "-" : namespace}/metricsHistory${query({ agent, ...times })}`;
      const history = await get<MetricsHistory>(path, signal);
      return { history, span: [start / 1000, end / 1000] as [number, number] };
    },
  });
  const change = (more: MetricsSearch) => navigate({ to: "/metrics", search: { ...search, ...more } });
  return (
    <>
      <Heading what="Metrics" />
      <nav className="choices" aria-label="Time">
        {HOURS.map((one) => (
          <Link
            key={one}
            to="/metrics"
            search={{ ...search, hours: one }}
            aria-current={one === hours ? "page" : undefined}
          >
            {nameOf(one)}
          </Link>
        ))}
      </nav>
      <form
        className="bar"
        onSubmit={(event) => {
          event.preventDefault();
          const given = String(new FormData(event.currentTarget).get("agent") ?? "").trim();
          void change({ agent: given || undefined });
        }}
      >
        <label>
          Agent
          <input name="agent" key={agent} defaultValue={agent} size={16} />
        </label>
        <button type="submit">Filter</button>
        <button
          type="button"
          aria-pressed={Boolean(all)}
          onClick={() => change({ all: all ? undefined : true })}
        >
          All namespaces
        </button>
        <button
          type="button"
          aria-pressed={view === "table"}
          onClick={() => change({ view: view ? undefined : "table" })}
        >
          Table
        </button>
        <button type="button" disabled={found.isFetching} onClick={() => found.refetch()}>
          Read again
        </button>
        {found.data && (
          <span className="quiet">
            by the {seconds(found.data.history.step) === 60 ? "minute" : "hour"}; read{" "}
            <Age from={new Date(found.dataUpdatedAt).toISOString()} /> ago; times are of {zone()}
          </span>
        )}
      </form>
      <Problem error={found.error} />
      {found.isPending && <p role="status">Loading…</p>}
      {found.data && !found.data.history.points?.length && <p>Nothing has happened in this time.</p>}
      {found.data && view === "table" && <Values history={found.data.history} />}
      {found.data && view !== "table" && <Charts history={found.data.history} span={found.data.span} />}
    </>
  );
}

function Values({ history }: { history: MetricsHistory }) {
  const all = GRAPHS.flatMap((graph) => graph.series.map((one) => ({ ...one, graph })));
  const points = history.points?.toReversed() ?? [];
  return (
    points.length > 0 && (
      <Table label="Values" heads={["Time", ...all.map(({ graph, name }) => `${graph.title}: ${name}`)]}>
        {points.map((point) => (
          <tr key={point.startTime}>
            <td>
              <Moment at={point.startTime} />
            </td>
            {all.map(({ graph, name, value }) => {
              const of = value(point);
              return <td key={`${graph.title} ${name}`}>{of === null ? "" : graph.format(of)}</td>;
            })}
          </tr>
        ))}
      </Table>
    )
  );
}
