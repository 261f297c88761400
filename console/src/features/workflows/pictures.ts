import type { Shape } from "./groups";

/** Steps of a graph that is drawn with rounded lines, whose layout takes seconds for many more. */
const MAX_STEPS = 200;

/** The library that lays graphs out is loaded when one is shown. */
export const loadGraph = () => import("./Graph");
export const loadBigGraph = () => import("./BigGraph");

/** Returns what loads the picture of a graph; nothing for a single step. */
export function loaderOf({ steps, last }: Shape): typeof loadGraph | typeof loadBigGraph | undefined {
  const count = steps.length + last.length;
  if (count === 0 || (count === 1 && !(steps[0] ?? last[0])?.group)) {
    return undefined;
  }
  return count > MAX_STEPS ? loadBigGraph : loadGraph;
}
