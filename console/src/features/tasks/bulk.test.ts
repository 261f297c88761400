import { expect, test } from "vitest";
import { MOST, readAll } from "./bulk";

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
