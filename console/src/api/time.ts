/** Times as people read them: of 24 hours, in the zone of the browser unless another one is named. */
interface Formats {
  exact: Intl.DateTimeFormat;
  clock: Intl.DateTimeFormat;
}

const known = new Map<string, Formats>();

/** Formats are costly to make. */
function formats(timeZone: string | undefined): Formats {
  const before = known.get(timeZone ?? "");
  if (before) {
    return before;
  }
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" } as const;
  const zone = timeZone ? { timeZone } : {};
  const made = {
    exact: new Intl.DateTimeFormat(undefined, {
      ...zone,
      ...clock,
      year: "numeric",
      month: "short",
      day: "numeric",
      timeZoneName: "short",
    }),
    clock: new Intl.DateTimeFormat(undefined, { ...zone, ...clock }),
  };
  known.set(timeZone ?? "", made);
  return made;
}

/** Returns a time with its day and its zone. */
export const exact = (at: Date | number, timeZone?: string) => formats(timeZone).exact.format(at);

/** Returns the time of the day, where the zone is named elsewhere. */
export const clock = (at: Date | number, timeZone?: string) => formats(timeZone).clock.format(at);

/** Returns the zone of the browser, such as `Europe/Berlin`. */
export const zone = () => new Intl.DateTimeFormat().resolvedOptions().timeZone;
