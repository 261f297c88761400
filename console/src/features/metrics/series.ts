import type { MetricsHistory, MetricsPoint } from "../../api/types";

/** Times of which the history is shown, in hours. */
export const HOURS = [1, 12, 48, 168, 720];

/** A line of a chart, and a column of the table. */
export interface Series {
  name: string;
  /** A missing point: nothing of a count, and unknown for all else. */
  isCount?: boolean;
  value: (point: MetricsPoint) => number | null;
}

export interface Graph {
  title: string;
  unit: string;
  format: (value: number) => string;
  series: Series[];
}

/** Seconds of a duration as JSON has it: `1.500s`. */
export function seconds(duration: string | undefined): number | null {
  return duration === undefined ? null : Number(duration.replace(/s$/, ""));
}

const count = (name: string, value: (point: MetricsPoint) => string | undefined): Series => ({
  name,
  isCount: true,
  value: (point) => Number(value(point) ?? 0),
});
const average = (name: string, value: (point: MetricsPoint) => number | string | undefined): Series => ({
  name,
  value: (point) => Number(value(point) ?? 0),
});
const rounded = (value: number) => String(Math.round(value * 10) / 10);
const time = (value: number) => `${value < 1 ? Number(value.toPrecision(2)) : rounded(value)} s`;

/** What is shown, in order. */
export const GRAPHS: Graph[] = [
  {
    title: "Tasks",
    unit: "number",
    format: rounded,
    series: [
      count("created", (point) => point.createdTasks),
      count("succeeded", (point) => point.succeededTasks),
      count("failed", (point) => point.failedTasks),
      count("cancelled", (point) => point.cancelledTasks),
    ],
  },
  {
    title: "Queue",
    unit: "tasks that wait for a slot",
    format: rounded,
    series: [
      average("average", (point) => point.queuedTasks),
      average("most", (point) => point.maxQueuedTasks),
    ],
  },
  {
    title: "Wait",
    unit: "seconds from ready to assigned",
    format: time,
    series: [
      { name: "median", value: (point) => seconds(point.wait?.p50) },
      { name: "95 %", value: (point) => seconds(point.wait?.p95) },
    ],
  },
  {
    title: "Run",
    unit: "seconds of an attempt",
    format: time,
    series: [
      { name: "median", value: (point) => seconds(point.attempt?.p50) },
      { name: "95 %", value: (point) => seconds(point.attempt?.p95) },
    ],
  },
  {
    title: "Workers",
    unit: "number",
    format: rounded,
    series: [
      average("workers", (point) => point.workers),
      average("without tasks, unavailable", (point) => point.unavailableWorkers),
      average("slots", (point) => point.slots),
      average("slots in use", (point) => point.usedSlots),
    ],
  },
  {
    title: "Cost",
    unit: "US dollars",
    format: (value) => `$${value.toFixed(2)}`,
    series: [count("cost", (point) => String(Number(point.costMicroUsd ?? 0) / 1e6))],
  },
  {
    title: "Tokens",
    unit: "number, without those of caches",
    format: rounded,
    series: [count("input", (point) => point.inputTokens), count("output", (point) => point.outputTokens)],
  },
];

/** Times in seconds, and the values of each series at these times. */
export type Columns = [number[], ...(number | null)[][]];

/**
 * Returns the columns of a graph: one value for each step of the time, also where a point is missing.
 */
export function columns(history: MetricsHistory, of: Graph, [start, end]: [number, number]): Columns {
  const step = seconds(history.step) || 60;
  const known = new Map(
    history.points?.map((point) => [Math.round(Date.parse(point.startTime ?? "") / 1000), point]),
  );
  const times: number[] = [];
  for (let at = Math.floor(start / step) * step; at <= end; at += step) {
    times.push(at);
  }
  const values = of.series.map((one) =>
    times.map((at) => {
      const point = known.get(at);
      return point ? one.value(point) : one.isCount ? 0 : null;
    }),
  );
  return [times, ...values];
}
