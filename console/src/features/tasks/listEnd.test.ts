import { expect, test } from "vitest";
import { type List, listOf, withBehind } from "./listEnd";

const [one, two] = [{ name: "namespaces/n/tasks/1" }, { name: "namespaces/n/tasks/2" }];

test("pages are one list, which ends where the last one has no token", () => {
  const pages = [{ tasks: [one], nextPageToken: "a" }, { nextPageToken: "" }];
  expect(listOf(pages)).toEqual({ tasks: [one], next: undefined, pages: 2 });
  expect(listOf(pages.slice(0, 1)).next).toBe("a");
});

test("what is behind a list is read until it has names", async () => {
  const answers = [{ nextPageToken: "b" }, { tasks: [{ ...two, uid: "2" }], nextPageToken: "c" }];
  const tokens: string[] = [];
  const read = async (token: string) => {
    tokens.push(token);
    return answers[tokens.length - 1] ?? {};
  };
  let list: List = listOf([{ tasks: [one], nextPageToken: "a" }]);
  for (let count = 0; count < 3; count += 1) {
    list = await withBehind(list, read);
  }
  expect(list).toEqual({ tasks: [one, two], next: undefined });
  expect(tokens).toEqual(["a", "b"]);
});
