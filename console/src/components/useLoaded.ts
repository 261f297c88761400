import { type ComponentType, useEffect, useState } from "react";

/** Returns a component of its own file once that is loaded. React keeps back what `lazy` has shown a placeholder for, until 300 ms after
 * that: a picture of thousands of steps, which takes less, need not wait. `load` is the same function each time. */
export function useLoaded<P>(
  load: () => Promise<{ default: ComponentType<P> }>,
): ComponentType<P> | undefined {
  const [loaded, setLoaded] = useState<{ component: ComponentType<P> }>();
  useEffect(() => {
    let isWanted = true;
    load().then(
      ({ default: component }) => isWanted && setLoaded({ component }),
      (problem) =>
        isWanted &&
        setLoaded(() => {
          throw problem;
        }),
    );
    return () => {
      isWanted = false;
    };
  }, [load]);
  return loaded?.component;
}
