import { expect, test } from "vitest";
import { clock, exact, zone } from "./time";

const AT = Date.parse("2030-07-01T21:05:09Z");

test("a time has its day, 24 hours and its zone", () => {
  const berlin = exact(AT, "Europe/Berlin");
  expect(berlin).toContain("2030");
  expect(berlin).toMatch(/23:05:09.+(GMT\+2|CEST)/);
  expect(exact(new Date(AT), "UTC")).toMatch(/21:05:09.+UTC/);
  // Midnight is 0 and not 24.
  expect(exact(Date.parse("2030-07-01T00:00:00Z"), "UTC")).toContain("00:00:00");
});

test("the zone follows the time of the year", () => {
  expect(exact(Date.parse("2030-01-01T21:05:09Z"), "Europe/Berlin")).toMatch(/22:05:09.+(GMT\+1|CET)/);
});

test("a time of the day has none, and the zone of the browser has a name", () => {
  expect(clock(AT, "Europe/Berlin")).toBe("23:05:09");
  expect(zone()).toBe(Intl.DateTimeFormat().resolvedOptions().timeZone);
});
