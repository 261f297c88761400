import { QueryClient, QueryObserver } from "@tanstack/react-query";
import { afterEach, expect, test, vi } from "vitest";
import { readEvery, refresh } from "./refresh";

afterEach(() => {
  vi.useRealTimers();
});

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

test("an interval passes although a stream changes the data in between", async () => {
  vi.useFakeTimers();
  const cache = new QueryClient();
  let reads = 0;
  const queryKey = ["busy"];
  const queryFn = async () => {
    reads += 1;
    return { reads };
  };
  const stop = new QueryObserver(cache, { queryKey, queryFn }).subscribe(() => {});
  await vi.advanceTimersByTimeAsync(0);
  expect(reads).toBe(1);
  const end = readEvery(10_000, () => void refresh(cache, queryKey));
  const pass = async (seconds: number) => {
    for (let second = 0; second < seconds; second += 1) {
      cache.setQueryData(queryKey, { reads, second });
      await vi.advanceTimersByTimeAsync(1000);
    }
  };
  await pass(30);
  expect(reads).toBe(4);
  end();
  await pass(30);
  expect(reads).toBe(4);
  stop();
  cache.clear();
});
