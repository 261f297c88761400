import { expect, test } from "vitest";
import { forEach, MOST, readAll } from "./bulk";

test("what is read is bounded", async () => {
  const page = { tasks: Array(300).fill({ name: "a" }), nextPageToken: "next" };
  const tokens: string[] = [];
  const found = await readAll(async (token) => {
    tokens.push(token);
    return page;
  });
  expect([found.tasks.length, found.more, tokens.length]).toEqual([MOST, true, 4]);
  const all = await readAll(async () => ({ tasks: [{ name: "a" }] }));
  expect([all.tasks.length, all.more]).toEqual([1, false]);
});

test("each is called once, a few at a time", async () => {
  let [now, most] = [0, 0];
  const called: number[] = [];
  const failed = await forEach([...Array(20).keys()], async (one) => {
    now += 1;
    most = Math.max(most, now);
    await Promise.resolve();
    now -= 1;
    called.push(one);
    if (one % 10 === 0) {
      throw new Error("no");
    }
  });
  expect(called.sort((one, other) => one - other)).toEqual([...Array(20).keys()]);
  expect(failed.map(({ one }) => one).sort((one, other) => one - other)).toEqual([0, 10]);
  expect(most).toBe(3);
});
