import { expect, test } from "vitest";
import { ownerOf } from "./session";

test("sessions of one person have one owner, and those of a token one for its role", () => {
  expect(ownerOf({ subject: "ada", role: "admin" })).toBe(ownerOf({ subject: "ada", role: "viewer" }));
  const owners = [
    { subject: "ada", role: "admin" },
    { subject: "eve" },
    { role: "admin" },
    { role: "viewer" },
  ];
  // No subject is taken for a token.
  const all = [...owners, { subject: "token admin" }].map(ownerOf);
  expect(new Set(all).size).toBe(all.length);
});
