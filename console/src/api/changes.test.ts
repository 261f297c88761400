import { expect, test } from "vitest";
import { Changes, withNewer } from "./changes";
import type { Task } from "./types";

const task = (name: string, logSeq: string, state = "RUNNING"): Task => ({
  name,
  status: { logSeq, state: `TASK_STATE_${state}` as "TASK_STATE_RUNNING" },
});

test("what arrives during a read is applied to it, in its order, and to no other read", async () => {
  const changes = new Changes<number>();
  const append = (found: number[], change: number) => [...found, change];
  changes.add(1);
  const release: (() => void)[] = [];
  const read = (found: number[]) =>
    changes.during(() => new Promise<number[]>((resolve) => release.push(() => resolve(found))), append);
  const first = read([10]);
  changes.add(2);
  const second = read([20]);
  changes.add(3);
  release[0]?.();
  expect(await first).toEqual([10, 2, 3]);
  changes.add(4);
  release[1]?.();
  expect(await second).toEqual([20, 3, 4]);
  const third = read([30]);
  release[2]?.();
  expect(await third).toEqual([30]);
  await expect(changes.during(() => Promise.reject(new Error("no")), append)).rejects.toThrow("no");
});

test("changes that are kept are bounded, and the newest count", async () => {
  const changes = new Changes<number>();
  const count = (found: number[], change: number) => [...found, change];
  const found = await changes.during(async () => {
    for (let change = 0; change < 10_010; change += 1) {
      changes.add(change);
    }
    return [] as number[];
  }, count);
  expect([found.length, found[0], found.at(-1)]).toEqual([10_000, 10, 10_009]);
});

test("the longer log of a task counts", () => {
  const listed = [task("a", "9"), task("b", "2")];
  expect(withNewer(listed, task("a", "10", "CANCELLED"))).toEqual([task("a", "10", "CANCELLED"), listed[1]]);
  expect(withNewer(listed, task("a", "8", "QUEUED"))).toBe(listed);
  expect(withNewer(listed, task("c", "1"))).toBe(listed);
  expect(withNewer(listed, undefined)).toBe(listed);
});
