import { expect, test } from "vitest";
import { tabTitle } from "./title";

test("the title of a tab has what waits, then its page, then the program", () => {
  expect(tabTitle("Tasks")).toBe("Tasks · Rota");
  expect(tabTitle("Task · find the needle", "2+")).toBe("(2+) Task · find the needle · Rota");
  expect(tabTitle("")).toBe("Rota");
});
