import { expect, test } from "vitest";
import { baseOf, movedBelow, ofBase } from "./base";

test("the base path is what the server has named", () => {
  expect(baseOf("/team/rota/")).toBe("/team/rota/");
  for (const named of [undefined, "", "./", "/", "rota/", "/rota"]) {
    expect(baseOf(named)).toBe("/");
  }
});

test("names of two control planes of a host differ", () => {
  expect(ofBase("rota.session", "/")).toBe("rota.session");
  expect(ofBase("rota.session", "/a/")).not.toBe(ofBase("rota.session", "/b/"));
});

test("pages move below the base path once", () => {
  expect(movedBelow("/rota/", "/")).toBe("/rota/");
  expect(movedBelow("/rota/", "/tasks/default/x")).toBe("/rota/tasks/default/x");
  expect(movedBelow("/rota/", "//evil.example")).toBe("/rota/evil.example");
  expect(movedBelow("/rota/", "/rotary")).toBe("/rota/rotary");
  for (const path of ["/rota", "/rota/", "/rota/tasks"]) {
    expect(movedBelow("/rota/", path)).toBeUndefined();
  }
  expect(movedBelow("/", "/tasks")).toBeUndefined();
});
