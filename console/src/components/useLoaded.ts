import { type ComponentType, type FunctionComponent, useEffect, useState } from "react";
import { NotLoaded } from "./NotLoaded";

export type Load<P> = () => Promise<{ default: ComponentType<P> }>;

/** Returns a component of its own file once that is loaded. React keeps back what `lazy` has shown a placeholder for, until 300 ms after
 * that: a picture of thousands of steps, which takes less, need not wait. `load` is the same function each time, until another component
 * or none is wanted. If it fails, `replacement` is shown until the caller is, again. */
export function useLoaded<P extends object>(
  load: Load<P> | undefined,
  replacement: FunctionComponent = NotLoaded,
): ComponentType<P> | undefined {
  const [loaded, setLoaded] = useState<{ load: Load<P>; component: ComponentType<P> }>();
  useEffect(() => {
    if (!load) {
      return;
    }
    let isWanted = true;
    void load()
      .catch((cause): { default: ComponentType<P> } => {
        // Such as an error of the file itself.
        console.error(cause);
        return { default: replacement };
      })
      .then(({ default: component }) => isWanted && setLoaded({ load, component }));
    return () => {
      isWanted = false;
    };
  }, [load, replacement]);
  return loaded?.load === load ? loaded?.component : undefined;
}
