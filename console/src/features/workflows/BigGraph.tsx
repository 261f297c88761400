import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import type { Drawn, Picture } from "./groups";
import { around, groupLabel, HEIGHT, isEnd, layers, type Node } from "./layers";

/** Where the picture is seen from. */
interface View {
  x: number;
  y: number;
  scale: number;
}

/** Scale below which names cannot be read. */
const LEGIBLE = 0.5;
const MAX_SCALE = 2;
/** Lines that are drawn at most: more of them are a surface. */
const MAX_EDGES = 20_000;
/** Pixels by which keys move the picture. */
const MOVES: Record<string, [number, number]> = {
  ArrowLeft: [-60, 0],
  ArrowRight: [60, 0],
  ArrowUp: [0, -60],
  ArrowDown: [0, 60],
};
/** Measures of the browser, of the newest layout: what that took, and the time from its begin until it was drawn first. */
const LAYOUT = "rota.graph.layout";
const FIRST_PAINT = "rota.graph.first-paint";
const STATES = ["waiting", "ready", "running", "succeeded", "failed", "held", "cancelled", "skipped"];

/** A picture of many steps on a canvas, of which only the visible part is drawn. The table of steps has the same in text. */
export default function BigGraph({ shape, stateOf, countOf, toggle }: Picture) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const palette = useRef<HTMLDivElement>(null);
  const view = useRef<View>({ x: 0, y: 0, scale: 0 });
  const [wanted, setWanted] = useState("");
  const [selected, setSelected] = useState("");
  const [focused, setFocused] = useState("");
  /** When the layout has begun that was not drawn yet; 0 for none. */
  const began = useRef(0);
  const laidOut = (steps: Drawn[], last: Drawn[]) => {
    began.current = performance.now();
    const graph = layers(steps, last);
    measured(LAYOUT, began.current);
    return graph;
  };
  // The layout follows from the steps alone, which change if some are added, or a group is opened or closed.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the function is the same
  const whole = useMemo(() => laidOut(shape.steps, shape.last), [shape]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the function is the same
  const graph = useMemo(() => {
    const near = focused && around(whole.nodes, focused);
    const kept = (all: Drawn[]) => (near ? all.filter((step) => near.has(step.name)) : all);
    return near ? laidOut(kept(shape.steps), kept(shape.last)) : whole;
  }, [whole, shape, focused]);
  const draw = useRef(() => {});
  draw.current = () => {
    const [box, colors] = [canvas.current, palette.current];
    if (box && colors && box.clientWidth > 0) {
      paint(box, colors, graph, view.current, { stateOf, countOf }, selected);
      if (began.current > 0 && view.current.scale > 0) {
        measured(FIRST_PAINT, began.current);
        began.current = 0;
      }
    }
  };
  // Drawn once per frame, however much changes.
  const frame = useRef(0);
  const redraw = () => {
    frame.current ||= requestAnimationFrame(() => {
      frame.current = 0;
      draw.current();
    });
  };
  const showAll = () => {
    const box = canvas.current;
    if (box) {
      const scale = Math.min(1, box.clientWidth / (graph.width + 20), box.clientHeight / (graph.height + 20));
      view.current = {
        scale,
        x: graph.width / 2 - box.clientWidth / 2 / scale,
        y: graph.height / 2 - box.clientHeight / 2 / scale,
      };
      redraw();
    }
  };
  const zoom = (factor: number, x?: number, y?: number) => {
    const { current: box } = canvas;
    if (!box) {
      return;
    }
    const [atX, atY] = [x ?? box.clientWidth / 2, y ?? box.clientHeight / 2];
    const before = view.current;
    const least = Math.min(
      0.02,
      box.clientHeight / (graph.height + 20),
      box.clientWidth / (graph.width + 20),
    );
    const scale = Math.min(MAX_SCALE, Math.max(least, before.scale * factor));
    view.current = {
      scale,
      x: before.x + atX / before.scale - atX / scale,
      y: before.y + atY / before.scale - atY / scale,
    };
    redraw();
  };
  const zoomed = useRef(zoom);
  zoomed.current = zoom;
  const pan = (x: number, y: number) => {
    const { scale } = view.current;
    view.current = { ...view.current, x: view.current.x + x / scale, y: view.current.y + y / scale };
    redraw();
  };
  const show = (name: string) => {
    const { current: box } = canvas;
    const node = graph.nodes.find((one) => one.name === name);
    if (box && node) {
      const scale = Math.max(view.current.scale, 1);
      view.current = {
        scale,
        x: node.x + node.width / 2 - box.clientWidth / 2 / scale,
        y: node.y + HEIGHT / 2 - box.clientHeight / 2 / scale,
      };
      setSelected(name);
      redraw();
    }
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new graph is seen as a whole, in the same frame
  useLayoutEffect(() => {
    showAll();
    draw.current();
  }, [graph]);
  useEffect(redraw);
  useEffect(() => {
    const box = canvas.current;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const resized = new ResizeObserver(() => draw.current());
    const again = () => draw.current();
    dark.addEventListener("change", again);
    if (box) {
      resized.observe(box);
    }
    return () => {
      dark.removeEventListener("change", again);
      resized.disconnect();
      cancelAnimationFrame(frame.current);
    };
  }, []);
  useEffect(() => {
    const box = canvas.current;
    // A listener that may keep the page from being zoomed: React's are passive.
    const wheel = (event: WheelEvent) => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        zoomed.current(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY);
      }
    };
    box?.addEventListener("wheel", wheel, { passive: false });
    return () => box?.removeEventListener("wheel", wheel);
  }, []);
  const chosen = graph.nodes.find((node) => node.name === selected);
  const drag = useRef<{ x: number; y: number; isMoved: boolean }>(undefined);
  const press = (key: string): boolean => {
    const [x, y] = MOVES[key] ?? [0, 0];
    if (key === "Enter" && chosen?.group && toggle) {
      toggle(chosen.name);
    } else if (key === "0") {
      showAll();
    } else if (key === "+" || key === "-") {
      zoom(key === "+" ? 1.3 : 1 / 1.3);
    } else if (x !== 0 || y !== 0) {
      pan(x, y);
    } else {
      return false;
    }
    return true;
  };
  const count = graph.nodes.filter((node) => !isEnd(node.name)).length;
  return (
    <>
      <form
        className="bar"
        onSubmit={(event) => {
          event.preventDefault();
          const part = wanted.toLowerCase();
          const found = graph.nodes.find((node) => node.name === wanted);
          show((found ?? graph.nodes.find((node) => node.name.toLowerCase().includes(part)))?.name ?? "");
        }}
      >
        <label>
          Step
          <input value={wanted} onChange={(event) => setWanted(event.target.value)} size={16} />
        </label>
        <button type="submit">Show</button>
        <button type="button" onClick={() => zoom(1.3)} aria-label="Larger">
          +
        </button>
        <button type="button" onClick={() => zoom(1 / 1.3)} aria-label="Smaller">
          −
        </button>
        <button type="button" onClick={showAll}>
          All
        </button>
        <button
          type="button"
          aria-pressed={focused !== ""}
          disabled={!focused && !selected}
          onClick={() => setFocused(focused ? "" : selected)}
        >
          {focused ? "Whole graph" : "Only what is connected"}
        </button>
        {chosen?.group && toggle && (
          <button
            type="button"
            aria-expanded={chosen.group === "open"}
            onClick={() => toggle(chosen.name)}
          >{`${chosen.group === "open" ? "Close" : "Open"} the group`}</button>
        )}
        <span className="quiet" role="status">
          {selected && [`${selected}: ${stateOf(selected)}`, countOf(selected)].filter(Boolean).join(", ")}
        </span>
      </form>
      <canvas
        ref={canvas}
        className="graph"
        role="img"
        tabIndex={0}
        aria-label={`Graph of ${count} steps; the table below has them in text`}
        onKeyDown={(event) => {
          if (!event.ctrlKey && !event.metaKey && press(event.key)) {
            event.preventDefault();
          }
        }}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          drag.current = { x: event.clientX, y: event.clientY, isMoved: false };
        }}
        onPointerMove={(event) => {
          const from = drag.current;
          if (from) {
            const [x, y] = [event.clientX, event.clientY];
            pan(from.x - x, from.y - y);
            drag.current = { x, y, isMoved: from.isMoved || Math.abs(from.x - x) + Math.abs(from.y - y) > 2 };
          }
        }}
        onPointerUp={(event) => {
          if (drag.current && !drag.current.isMoved) {
            const { offsetX, offsetY } = event.nativeEvent;
            const { x, y, scale } = view.current;
            const node = nodeAt(graph.nodes, x + offsetX / scale, y + offsetY / scale);
            setSelected(node?.name ?? "");
            if (node?.group) {
              toggle?.(node.name);
            }
          }
          drag.current = undefined;
        }}
      />
      <div ref={palette} className="hidden" aria-hidden="true">
        {STATES.map((state) => (
          <span key={state} className={`state ${state}`} />
        ))}
      </div>
    </>
  );
}

/** Measures the time since another one, in place of the last measure of that name. */
function measured(name: string, start: number): void {
  performance.clearMeasures(name);
  performance.measure(name, { start });
}

function nodeAt(nodes: Node[], x: number, y: number): Node | undefined {
  return nodes.find((node) => x >= node.x && x <= node.x + node.width && y >= node.y && y <= node.y + HEIGHT);
}

/** Draws what is visible. */
function paint(
  box: HTMLCanvasElement,
  palette: HTMLDivElement,
  { nodes, columns }: ReturnType<typeof layers>,
  { x, y, scale }: View,
  { stateOf, countOf }: Pick<Picture, "stateOf" | "countOf">,
  selected: string,
): void {
  const ratio = devicePixelRatio;
  const [width, height] = [box.clientWidth, box.clientHeight];
  if (box.width !== width * ratio || box.height !== height * ratio) {
    [box.width, box.height] = [width * ratio, height * ratio];
  }
  const context = box.getContext("2d");
  if (!context || scale === 0) {
    return;
  }
  const colors = new Map(
    STATES.map((state, index) => [state, getComputedStyle(palette.children[index] ?? box).color]),
  );
  const text = getComputedStyle(box).color;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(ratio * scale, 0, 0, ratio * scale, -x * scale * ratio, -y * scale * ratio);
  const [right, bottom] = [x + width / scale, y + height / scale];
  const visible = visibleNodes(nodes, columns, { left: x, right, top: y, bottom });
  context.strokeStyle = text;
  context.globalAlpha = 0.3;
  context.lineWidth = 1 / Math.max(scale, 0.2);
  context.beginPath();
  let edges = 0;
  for (const node of visible) {
    for (const need of node.needs) {
      const from = nodes[need];
      edges += 1;
      if (from && edges <= MAX_EDGES) {
        context.moveTo(from.x + from.width, from.y + HEIGHT / 2);
        context.lineTo(node.x, node.y + HEIGHT / 2);
      }
    }
    // What needs it and is out of sight draws no line by itself.
    for (const next of node.neededBy) {
      const to = nodes[next];
      if (to && (to.x > right || to.y > bottom || to.y + HEIGHT < y) && edges <= MAX_EDGES) {
        edges += 1;
        context.moveTo(node.x + node.width, node.y + HEIGHT / 2);
        context.lineTo(to.x, to.y + HEIGHT / 2);
      }
    }
  }
  context.stroke();
  context.globalAlpha = 1;
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const node of visible) {
    const color = colors.get(stateOf(node.name)) ?? text;
    context.strokeStyle = color;
    context.fillStyle = color;
    context.lineWidth = node.name === selected ? 3 : 1;
    if (scale < LEGIBLE) {
      context.globalAlpha = node.name === selected ? 1 : 0.6;
      context.fillRect(node.x, node.y, node.width, HEIGHT);
      context.globalAlpha = 1;
    } else {
      context.strokeRect(node.x, node.y, node.width, HEIGHT);
      const label = groupLabel(node.label, node.group, node.group ? countOf(node.name) : "");
      context.fillText(label, node.x + 8, node.y + HEIGHT / 2);
    }
  }
}

/** Nodes in a rectangle: of each column between its sides, those between its top and bottom. */
function visibleNodes(
  nodes: Node[],
  columns: number[][],
  { left, right, top, bottom }: { left: number; right: number; top: number; bottom: number },
): Node[] {
  const found: Node[] = [];
  for (const column of columns) {
    const first = nodes[column[0] ?? -1];
    if (!first || first.x > right) {
      break;
    }
    let [low, high] = [0, column.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((nodes[column[middle] ?? 0]?.y ?? 0) + HEIGHT < top) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    for (let row = low; row < column.length; row += 1) {
      const node = nodes[column[row] ?? 0];
      if (!node || node.y > bottom) {
        break;
      }
      if (node.x + node.width >= left) {
        found.push(node);
      }
    }
  }
  return found;
}
