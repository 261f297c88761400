import { expect, test } from "vitest";
import { forEach } from "./each";

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
