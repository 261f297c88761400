import { expect, test } from "vitest";
import { refusalOf } from "./token";

test("addresses name a reason, and no text of their own is shown", () => {
  expect(refusalOf("#refused=unlisted")).toContain("not on the list");
  expect(refusalOf("#refused=later")).toContain("Too many");
  expect(refusalOf("#refused=other")).toBe(refusalOf("#refused=issuer"));
  for (const other of [
    "",
    "#",
    "#code=ab",
    "#refused=",
    "#refused=Your%20account",
    "#refused=a b",
    "refused=state",
  ]) {
    expect(refusalOf(other)).toBeUndefined();
  }
});
