import { QueryClient, QueryObserver } from "@tanstack/react-query";
import { expect, test } from "vitest";
import { refresh } from "./refresh";

test("a read ends although much changes meanwhile, and one more follows", async () => {
  const cache = new QueryClient();
  const reads: ((found: string) => void)[] = [];
  const begun = async (count: number) => {
    await expect.poll(() => reads.length).toBe(count);
  };
  const queryKey = ["slow"];
  const queryFn = () => new Promise<string>((resolve) => reads.push(resolve));
  const observer = new QueryObserver(cache, { queryKey, queryFn });
  const shown: unknown[] = [];
  const stop = observer.subscribe(({ data }) => shown.push(data));
  await begun(1);
  // More changes than reads could follow, during the first one and the second one.
  const all = [1, 2, 3].map(() => refresh(cache, queryKey));
  expect(reads.length).toBe(1);
  reads[0]?.("first");
  await begun(2);
  all.push(refresh(cache, queryKey));
  reads[1]?.("second");
  await begun(3);
  reads[2]?.("third");
  await Promise.all(all);
  expect(reads.length).toBe(3);
  expect(shown.filter((one, index) => one && one !== shown[index - 1])).toEqual(["first", "second", "third"]);
  stop();
  cache.clear();
});
