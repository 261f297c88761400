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
