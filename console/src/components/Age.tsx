import { useEffect, useState } from "react";
import { span } from "../api/format";
import { exact } from "../api/time";

let now = Date.now();
const listeners = new Set<(now: number) => void>();
// One clock for all that show an age.
setInterval(() => {
  now = Date.now();
  for (const listener of listeners) {
    listener(now);
  }
}, 5000);

/** A time with its zone. */
export function Moment({ at }: { at: string | undefined }) {
  return at ? <time dateTime={at}>{exact(new Date(at))}</time> : null;
}

/** Returns the time of the clock that all share, as long as something lasts. */
export function useNow(isLasting: boolean): number {
  const [time, setTime] = useState(now);
  useEffect(() => {
    if (!isLasting) {
      return;
    }
    listeners.add(setTime);
    return () => {
      listeners.delete(setTime);
    };
  }, [isLasting]);
  return Math.max(time, Date.now());
}

/** How long ago a time was, or how long a span was; the time with its zone as a title. */
export function Age({ from, to }: { from: string | undefined; to?: string | undefined }) {
  const time = useNow(!to);
  if (!from) {
    return null;
  }
  const begin = new Date(from);
  const end = to ? Date.parse(to) : time;
  return (
    <time dateTime={from} title={exact(begin)}>
      {span(end - begin.getTime())}
    </time>
  );
}
