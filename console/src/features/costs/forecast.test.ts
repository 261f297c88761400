import { expect, test } from "vitest";
import { forecastOf, hourlyRate, isLimited, readRates } from "./forecast";

const NOW = new Date("2026-11-27T12:00:00Z");
const budget = (daily: number, monthly: number) => ({
  dailyMicroUsd: String(daily * 1e6),
  monthlyMicroUsd: String(monthly * 1e6),
});
const spent = (today: number, month: number) => ({
  spentTodayMicroUsd: String(today * 1e6),
  spentThisMonthMicroUsd: String(month * 1e6),
});
/** A dollar an hour. */
const RATES = { day: 24e6, week: 24e6 };

test("the rate is that of a day, or of a week in which the last day cost nothing", () => {
  expect(hourlyRate({ day: 48e6, week: 48e6 })).toBe(2e6);
  expect(hourlyRate({ day: 0, week: 168e6 })).toBe(1e6);
  expect(hourlyRate({ day: 0, week: 0 })).toBe(0);
});

test("the month is what was spent, and the rate until its end in UTC", () => {
  // Three and a half days are left.
  expect(forecastOf(spent(12, 100), RATES, NOW)).toEqual({ hourly: 1e6, month: 184e6 });
  const newYear = new Date("2026-12-31T23:00:00Z");
  expect(forecastOf(spent(1, 10), RATES, newYear).month).toBe(11e6);
});

test("the limit that is reached first is named, with when", () => {
  const one = { ...spent(12, 100), budget: budget(15, 110) };
  expect(forecastOf(one, RATES, NOW).runsOut).toEqual({ at: new Date("2026-11-27T15:00:00Z"), of: "day" });
  // That of the day begins again before it is reached, that of the month does not.
  const later = { ...spent(12, 100), budget: budget(30, 120) };
  expect(forecastOf(later, RATES, NOW).runsOut).toEqual({
    at: new Date("2026-11-28T08:00:00Z"),
    of: "month",
  });
});

test("nothing runs out without a limit, without spending, or within its time", () => {
  for (const [status, rates] of [
    [{ ...spent(12, 100), budget: budget(0, 0) }, RATES],
    [
      { ...spent(12, 100), budget: budget(13, 101) },
      { day: 0, week: 0 },
    ],
    [{ ...spent(12, 100), budget: budget(30, 400) }, RATES],
    // Exhausted already.
    [{ ...spent(12, 100), budget: budget(12, 0) }, RATES],
  ] as const) {
    expect(forecastOf(status, rates, NOW).runsOut).toBeUndefined();
  }
});

test("what was spent is read from the metrics of the agent, or of the namespace", async () => {
  const paths: string[] = [];
  const get = async <T>(path: string) => {
    paths.push(path);
    return { points: [{ costMicroUsd: "2000000" }, {}, { costMicroUsd: "500000" }] } as T;
  };
  const now = NOW.getTime();
  expect(await readRates({ name: "namespaces/team/agents/coder" }, now, get)).toEqual({
    day: 2.5e6,
    week: 2.5e6,
  });
  expect(paths[0]).toContain("namespaces/team/metricsHistory?agent=coder&startTime=2026-11-26T12");
  expect(paths[1]).toContain("startTime=2026-11-20T12");
  await readRates({ name: "namespaces/team" }, now, get);
  expect(paths[2]).not.toContain("agent=");
  expect([isLimited({ budget: budget(0, 1) }), isLimited({ budget: budget(0, 0) }), isLimited({})]).toEqual([
    true,
    false,
    false,
  ]);
});
