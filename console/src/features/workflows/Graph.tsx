import dagre from "@dagrejs/dagre";
import { useMemo } from "react";
import { word } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { StepStatus, WorkflowSpec } from "../../api/types";

const HEIGHT = 30;
const CHARACTER = 7.5;
/** Characters of a name in the picture; the table has all of it. */
const MAX_NAME = 28;

interface Props {
  spec: WorkflowSpec;
  steps: ReadonlyMap<string, StepStatus>;
}

/** A picture of the steps of a workflow, each right of those that it needs. The table of steps has the same in text. */
export default function Graph({ spec, steps }: Props) {
  // The layout follows from the specification alone, which never changes.
  const { nodes, edges, width, height } = useMemo(() => layout(spec), [spec]);
  return (
    <svg
      className="graph"
      role="img"
      aria-label={`Graph of ${nodes.length} steps; the table below has them in text`}
      width={width}
      height={height}
      viewBox={`0 0 ${width} ${height}`}
    >
      {edges.map((edge) => (
        <polyline key={`${edge.from} ${edge.to}`} points={edge.points} />
      ))}
      {nodes.map((node) => {
        const state = word(steps.get(node.name)?.state, "STEP_STATE_") || "waiting";
        return (
          <g
            key={node.name}
            className={`state ${state.replaceAll(" ", "-")}`}
            transform={`translate(${node.x - node.width / 2} ${node.y - HEIGHT / 2})`}
          >
            <title>{`${node.name}: ${state}`}</title>
            <rect width={node.width} height={HEIGHT} rx={4} />
            <text x={node.width / 2} y={HEIGHT / 2} textAnchor="middle" dominantBaseline="central">
              {node.label}
            </text>
          </g>
        );
      })}
    </svg>
  );
}

function layout(spec: WorkflowSpec) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 12, ranksep: 40, marginx: 4, marginy: 4 });
  graph.setDefaultEdgeLabel(() => ({}));
  const all = [...(spec.steps ?? []), ...(spec.finally ?? [])];
  for (const step of all) {
    const name = visibleLine(step.name);
    const label = name.length > MAX_NAME ? `${name.slice(0, MAX_NAME - 1)}…` : name;
    graph.setNode(step.name ?? "", { label, width: label.length * CHARACTER + 20, height: HEIGHT });
  }
  for (const step of all) {
    for (const need of step.needs ?? []) {
      graph.setEdge(need.step ?? "", step.name ?? "");
    }
  }
  dagre.layout(graph);
  const nodes = graph.nodes().map((name) => {
    const { x = 0, y = 0, width = 0, label = "" } = graph.node(name);
    return { name, label: String(label), x, y, width };
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
