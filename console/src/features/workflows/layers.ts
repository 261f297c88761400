import { visibleLine } from "../../api/plain";

interface Step {
  name?: string;
  /** What is shown in place of the name. */
  label?: string;
  needs?: { step?: string }[];
  group?: "open" | "closed";
}

/** A step with its place. */
export interface Node {
  name: string;
  label: string;
  x: number;
  y: number;
  width: number;
  group: Step["group"];
  needs: number[];
  neededBy: number[];
}

export interface Layers {
  /** In the order of the specification. */
  nodes: Node[];
  /** Indexes of nodes from left to right, in each column from top to bottom. */
  columns: number[][];
  width: number;
  height: number;
}

export const HEIGHT = 26;
const ROW = 36;
const GAP = 70;
const CHARACTER = 7;
/** Characters of a name in the picture; the table has all of it. */
const MAX_NAME = 28;
/** Characters that a group has besides its name: its sign and its count. */
export const COUNT = 14;
/** Sweeps in both directions that bring steps near to those that they are connected with. */
const SWEEPS = 4;

/** Returns what is shown of a step. */
export function labelOf(step: Step): string {
  const name = visibleLine(step.label ?? step.name);
  return name.length > MAX_NAME ? `${name.slice(0, MAX_NAME - 1)}…` : name;
}

/** Whether a node is the end of an open group, or the place before its finally-steps: neither is a step. */
export const isEnd = (name: string) => name.endsWith("/");

/** Returns what is shown of a group: whether it is open, and how much of it is done. */
export const groupLabel = (label: string, group: Step["group"], count: string) =>
  group ? `${group === "open" ? "▾" : "▸"} ${label}${count && ` · ${count}`}` : label;

/**
 * Places the steps of a large graph: each in a column right of all that it needs, and near to them in height. Takes time in proportion to
 * the steps and their needs, where libraries of graphs take minutes.
 */
export function layers(steps: Step[] = [], last: Step[] = []): Layers {
  const all = [...steps, ...last];
  const indexes = new Map(all.map((step, index) => [step.name, index]));
  const nodes = all.map((step) => {
    const label = labelOf(step);
    const needs = (step.needs ?? []).flatMap((need) => indexes.get(need.step) ?? []);
    return {
      name: step.name ?? "",
      label,
      x: 0,
      y: 0,
      width: (label.length + (step.group ? COUNT : 0)) * CHARACTER + 16,
      group: step.group,
      needs,
      neededBy: [],
    };
  }) as Node[];
  nodes.forEach((node, index) => {
    for (const need of node.needs) {
      nodes[need]?.neededBy.push(index);
    }
  });
  const columns = columnsOf(nodes, steps.length);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    order(nodes, columns, "needs");
    order(nodes, columns.toReversed(), "neededBy");
  }
  let x = 0;
  const most = Math.max(1, ...columns.map((column) => column.length));
  for (const column of columns) {
    const widest = column.reduce((widest, index) => Math.max(widest, nodes[index]?.width ?? 0), 0);
    column.forEach((index, row) => {
      const node = nodes[index];
      if (node) {
        node.x = x;
        node.y = (row + (most - column.length) / 2) * ROW;
      }
    });
    x += widest + GAP;
  }
  return { nodes, columns, width: Math.max(0, x - GAP), height: most * ROW - (ROW - HEIGHT) };
}

/** Puts each step in the column after the last one of those that it needs; the steps from `last` on after all others. */
function columnsOf(nodes: Node[], last: number): number[][] {
  const columns: number[][] = [];
  const column = new Array<number>(nodes.length).fill(0);
  const missing = nodes.map((node) => node.needs.length);
  let offset = 0;
  for (const [from, to] of [
    [0, last],
    [last, nodes.length],
  ] as const) {
    const ready: number[] = [];
    for (let index = from; index < to; index += 1) {
      column[index] = offset;
      if (missing[index] === 0) {
        ready.push(index);
      }
    }
    for (let at = 0; at < ready.length; at += 1) {
      const index = ready[at] ?? 0;
      for (const next of nodes[index]?.neededBy ?? []) {
        column[next] = Math.max(column[next] ?? 0, (column[index] ?? 0) + 1);
        missing[next] = (missing[next] ?? 0) - 1;
        if (missing[next] === 0) {
          ready.push(next);
        }
      }
    }
    for (let index = from; index < to; index += 1) {
      const place = column[index] ?? 0;
      columns[place] ??= [];
      columns[place].push(index);
    }
    offset = columns.length;
  }
  return columns;
}

/** Sorts each column by the average row of the neighbours on one side. */
function order(nodes: Node[], columns: number[][], side: "needs" | "neededBy"): void {
  // Shares of their columns; 0 of nodes whose column comes later.
  const rows = new Float64Array(nodes.length);
  const wanted = new Float64Array(nodes.length);
  for (const column of columns) {
    column.forEach((index, row) => {
      let [sum, known] = [0, 0];
      for (const one of nodes[index]?.[side] ?? []) {
        const share = rows[one] ?? 0;
        sum += share;
        known += share > 0 ? 1 : 0;
      }
      wanted[index] = known > 0 ? sum / known : row / Math.max(1, column.length);
    });
    column.sort((one, other) => (wanted[one] ?? 0) - (wanted[other] ?? 0));
    // Columns have different numbers of rows: shares can be compared.
    column.forEach((index, row) => {
      rows[index] = (row + 0.5) / column.length;
    });
  }
}

/** Returns the names of a step, of all that it needs and of all that need it, also by way of others. */
export function around(nodes: Node[], name: string): Set<string> {
  const start = nodes.findIndex((node) => node.name === name);
  const found = new Set<string>();
  for (const side of ["needs", "neededBy"] as const) {
    const seen = new Set(start < 0 ? [] : [start]);
    for (const index of seen) {
      found.add(nodes[index]?.name ?? "");
      for (const next of nodes[index]?.[side] ?? []) {
        seen.add(next);
      }
    }
  }
  return found;
}
