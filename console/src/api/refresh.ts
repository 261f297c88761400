import type { QueryClient, QueryKey } from "@tanstack/react-query";

/**
 * Reads what is shown again. A first read that is under way does not count: what has happened since it began may be missing
 * from it, and an invalidation alone would not repeat it.
 */
export async function refresh(cache: QueryClient, queryKey: QueryKey): Promise<void> {
  await cache.cancelQueries({ queryKey });
  await cache.invalidateQueries({ queryKey });
}
