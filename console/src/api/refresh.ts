import type { QueryClient, QueryKey, Updater } from "@tanstack/react-query";

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

/** Puts what an action has returned in place of what was read. A reading that is under way may be older, and is given up. */
export async function overwrite<T>(
  cache: QueryClient,
  queryKey: QueryKey,
  change: Updater<T | undefined, T | undefined>,
): Promise<void> {
  await cache.cancelQueries({ queryKey });
  cache.setQueryData<T>(queryKey, change);
}
