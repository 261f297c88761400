/** Calls at a time: a browser has six connections to a server. */
const CALLS = 3;

/** Makes a call for each, a few at a time. Returns those that failed, with the reason. */
export async function forEach<T>(
  all: T[],
  call: (one: T) => Promise<unknown>,
): Promise<{ one: T; why: unknown }[]> {
  const failed: { one: T; why: unknown }[] = [];
  const left = all.values();
  const work = async () => {
    for (const one of left) {
      await call(one).catch((why: unknown) => failed.push({ one, why }));
    }
  };
  await Promise.all(Array.from({ length: CALLS }, work));
  return failed;
}
