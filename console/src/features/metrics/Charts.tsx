import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { exact } from "../../api/time";
import type { MetricsHistory } from "../../api/types";
import { type Columns, columns, GRAPHS, type Graph } from "./series";

const HEIGHT = 190;
/** Lines differ not only in color. */
const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
const dark = matchMedia("(prefers-color-scheme: dark)");

function useDark(): boolean {
  return useSyncExternalStore(
    (listener) => {
      dark.addEventListener("change", listener);
      return () => dark.removeEventListener("change", listener);
    },
    () => dark.matches,
  );
}

/** Times below the chart: of the day, or with the day where there are several. */
function times(hasDays: boolean) {
  const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
  return (at: number) => {
    const time = new Date(at * 1000);
    return hasDays ? `${day.format(time)}\n${hour.format(time)}` : hour.format(time);
  };
}

/** All charts. The table of the page has the same values, for those who do not see them. */
export default function Charts({ history, span }: { history: MetricsHistory; span: [number, number] }) {
  return (
    <div className="charts">
      {GRAPHS.map((graph) => (
        <Chart key={graph.title} graph={graph} data={columns(history, graph, span)} />
      ))}
    </div>
  );
}

/** A chart of lines. */
function Chart({ graph, data }: { graph: Graph; data: Columns }) {
  const place = useRef<HTMLDivElement>(null);
  const legend = useRef<HTMLUListElement>(null);
  const chart = useRef<uPlot>(undefined);
  const [at, setAt] = useState<number | null>(null);
  const isDark = useDark();
  const latest = useRef(data);
  latest.current = data;
  const [begin = 0] = data[0];
  const hasDays = (data[0].at(-1) ?? begin) - begin > 86_400;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the colors are those of the theme
  useEffect(() => {
    const [box, colors] = [place.current, legend.current];
    if (!box || !colors) {
      return;
    }
    const color = (of: Element) => getComputedStyle(of).color;
    const format = times(hasDays);
    const axis = { stroke: color(box), grid: { stroke: color(box), width: 0.1 }, ticks: { show: false } };
    const made = new uPlot(
      {
        width: box.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.05 : 1] } },
        axes: [
          { ...axis, values: (_, splits) => splits.map(format) },
          { ...axis, size: 60, values: (_, splits) => splits.map(graph.format) },
        ],
        series: [
          {},
          ...graph.series.map((one, index) => ({
            label: one.name,
            stroke: color(colors.children[index] ?? box),
            width: 1.5,
            dash: DASHES[index] ?? [],
            // One between two that are missing is no line.
            ...(!one.isCount && { points: { show: true, size: 4 } }),
          })),
        ],
        hooks: { setCursor: [(plot) => setAt(plot.cursor.idx ?? null)] },
      },
      latest.current,
      box,
    );
    chart.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: HEIGHT }));
    resized.observe(box);
    return () => {
      resized.disconnect();
      made.destroy();
    };
  }, [graph, isDark, hasDays, data[0].length]);
  useEffect(() => chart.current?.setData(data), [data]);
  const shown = at === null ? undefined : data[0][at];
  const value = (index: number) => {
    const value = at === null ? null : data[index + 1]?.[at];
    return value === null || value === undefined ? "" : `: ${graph.format(value)}`;
  };
  return (
    <figure className="chart">
      <figcaption>
        {graph.title} <span className="quiet">({graph.unit})</span>
      </figcaption>
      <div ref={place} className="plot" role="img" aria-label={`${graph.title}; the table has its values`} />
      <ul ref={legend} className="legend">
        {graph.series.map((one, index) => (
          <li key={one.name} className={`line-${index}`}>
            <span className="swatch" aria-hidden="true" />
            {one.name}
            {value(index)}
          </li>
        ))}
        {shown !== undefined && <li className="quiet">{exact(shown * 1000)}</li>}
      </ul>
    </figure>
  );
}
