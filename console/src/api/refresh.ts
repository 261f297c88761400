import type { QueryClient, QueryKey } from "@tanstack/react-query";

/**
 * Reads what is shown again. A read that is under way ends first, however long it takes and however much changes meanwhile; then
 * one more follows, since what has happened since it began may be missing from it.
 */
export async function refresh(cache: QueryClient, queryKey: QueryKey): Promise<void> {
  const isReading = cache.isFetching({ queryKey }) > 0;
  await cache.invalidateQueries({ queryKey }, { cancelRefetch: false });
  if (isReading) {
    await cache.invalidateQueries({ queryKey }, { cancelRefetch: false });
  }
}

/**
 * Reads something again at an interval, in milliseconds, until the function that it returns is called. The interval of a query begins
 * again with each change of its data: it never passes while a stream makes one.
 */
export function readEvery(interval: number, read: () => void): () => void {
  const timer = setInterval(read, interval);
  return () => clearInterval(timer);
}
