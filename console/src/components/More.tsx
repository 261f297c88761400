import type { UseInfiniteQueryResult } from "@tanstack/react-query";

/** The button that reads the next page of a list. */
export function More({
  of,
  what,
}: {
  of: Pick<UseInfiniteQueryResult, "hasNextPage" | "isFetchingNextPage" | "fetchNextPage">;
  what: string;
}) {
  return (
    of.hasNextPage && (
      <button type="button" disabled={of.isFetchingNextPage} onClick={() => void of.fetchNextPage()}>
        Show more {what}
      </button>
    )
  );
}
