import dagre from "@dagrejs/dagre";
import { useMemo } from "react";
import { Scroll } from "../../components/Scroll";
import type { Picture, Shape } from "./groups";
import { COUNT, groupLabel, isEnd, labelOf } from "./layers";

const HEIGHT = 30;
const CHARACTER = 7.5;

/** A picture of the steps of a workflow, each right of those that it needs. The table of steps has the same in text. */
export default function Graph({ shape, stateOf, countOf, toggle }: Picture) {
  // The layout follows from the steps alone, not from their states.
  const { nodes, edges, width, height } = useMemo(() => layout(shape), [shape]);
  const hasGroups = toggle !== undefined && nodes.some((node) => node.group);
  const count = nodes.filter((node) => !isEnd(node.name)).length;
  return (
    <Scroll label="Graph">
      <svg
        className="graph"
        // What is within an image cannot be reached.
        role={hasGroups ? "group" : "img"}
        aria-label={`Graph of ${count} steps; the table below has them in text`}
        width={width}
        height={height}
        viewBox={`0 0 ${width} ${height}`}
      >
        {edges.map((edge) => (
          <polyline key={`${edge.from} ${edge.to}`} points={edge.points} />
        ))}
        {nodes.map((node) => {
          const state = stateOf(node.name);
          const count = node.group ? countOf(node.name) : "";
          const className = `state ${state.replaceAll(" ", "-")}`;
          const transform = `translate(${node.x - node.width / 2} ${node.y - HEIGHT / 2})`;
          const title = <title>{`${node.name}: ${state}${count && `, ${count}`}`}</title>;
          const box = (
            <>
              <rect width={node.width} height={HEIGHT} rx={4} />
              <text x={node.width / 2} y={HEIGHT / 2} textAnchor="middle" dominantBaseline="central">
                {groupLabel(node.label, node.group, count)}
              </text>
            </>
          );
          if (!node.group || !toggle) {
            return (
              <g key={node.name} className={className} transform={transform}>
                {title}
                {box}
              </g>
            );
          }
          // The name of the button begins with its text, for those who speak to it.
          return (
            <g key={node.name}>
              {title}
              {/* biome-ignore lint/a11y/useSemanticElements: a picture has no buttons */}
              <g
                className={`${className} group`}
                transform={transform}
                role="button"
                tabIndex={0}
                aria-label={`${node.name}${count && ` · ${count}`}: ${state}`}
                aria-expanded={node.group === "open"}
                onClick={() => toggle(node.name)}
                onKeyDown={(event) => {
                  if (event.key === "Enter" || event.key === " ") {
                    event.preventDefault();
                    toggle(node.name);
                  }
                }}
              >
                {box}
              </g>
            </g>
          );
        })}
      </svg>
    </Scroll>
  );
}

function layout({ steps, last }: Shape) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 12, ranksep: 40, marginx: 4, marginy: 4 });
  graph.setDefaultEdgeLabel(() => ({}));
  const all = [...steps, ...last];
  const groups = new Map(all.map(({ name, group }) => [name, group]));
  for (const step of all) {
    const label = labelOf(step);
    const width = (label.length + (step.group ? COUNT : 0)) * CHARACTER + 20;
    graph.setNode(step.name, { label, width, height: HEIGHT });
  }
  for (const step of all) {
    for (const need of step.needs) {
      graph.setEdge(need.step, step.name);
    }
  }
  dagre.layout(graph);
  const nodes = graph.nodes().map((name) => {
    const { x = 0, y = 0, width = 0, label = "" } = graph.node(name);
    return { name, label: String(label), group: groups.get(name), x, y, width };
  });
  const edges = graph.edges().map((edge) => ({
    from: edge.v,
    to: edge.w,
    points: graph
      .edge(edge)
      .points.map((point: { x: number; y: number }) => `${point.x},${point.y}`)
      .join(" "),
  }));
  const { width = 0, height = 0 } = graph.graph();
  return { nodes, edges, width, height };
}
