import { type ComponentType, useEffect, useState } from "react";
import { insteadOf, NotLoaded } from "./later";

type Load<P> = () => Promise<{ default: ComponentType<P> }>;

/** Returns a component of its own file once that is loaded. React keeps back what `lazy` has shown a placeholder for, until 300 ms after
 * that: a picture of thousands of steps, which takes less, need not wait. `load` is the same function each time, until another component
 * or none is wanted. */
export function useLoaded<P>(load: Load<P> | undefined): ComponentType<P> | undefined {
  const [loaded, setLoaded] = useState<{ load: Load<P>; component: ComponentType<P> }>();
  useEffect(() => {
    if (!load) {
      return;
    }
    let isWanted = true;
    void load()
      .catch(insteadOf({ default: NotLoaded }))
      .then(({ default: component }) => isWanted && setLoaded({ load, component }));
    return () => {
      isWanted = false;
    };
  }, [load]);
  return loaded?.load === load ? loaded?.component : undefined;
}
