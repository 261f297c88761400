import { id, query } from "../../api/format";
import type { BudgetStatus, MetricsHistory } from "../../api/types";

const HOUR = 3_600_000;
/** Times over which spending is observed, in milliseconds: what is new counts soon, what is rare is seen at all. */
const TIMES = { day: 24 * HOUR, week: 7 * 24 * HOUR };

/** What an agent or a namespace has spent, in millionths of a dollar. */
export interface Rates {
  /** In the last 24 hours. */
  day: number;
  /** In the last seven days. */
  week: number;
}

/** Whether anything is limited. */
export const isLimited = ({ budget }: BudgetStatus) =>
  Number(budget?.dailyMicroUsd ?? 0) > 0 || Number(budget?.monthlyMicroUsd ?? 0) > 0;

/** Reads what was spent from the history of the metrics, which has it by the minute and by the hour. */
export async function readRates(
  status: BudgetStatus,
  now: number,
  get: <T>(path: string) => Promise<T>,
): Promise<Rates> {
  const [, namespace, kind] = status.name?.split("/") ?? [];
  const agent = kind === "agents" ? id(status.name) : undefined;
  const since = async (time: number) => {
    const times = { startTime: new Date(now - time).toISOString(), endTime: new Date(now).toISOString() };
    const path = `namespaces/${namespace}/metricsHistory${query({ agent, ...times })}`;
    const { points = [] } = await get<MetricsHistory>(path);
    return points.reduce((sum, point) => sum + Number(point.costMicroUsd ?? 0), 0);
  };
  const [day, week] = await Promise.all([since(TIMES.day), since(TIMES.week)]);
  return { day, week };
}

export interface Forecast {
  /** Cost of an hour at the current rate, in millionths of a dollar. */
  hourly: number;
  /** Cost of this month of UTC at its end, in millionths of a dollar. */
  month: number;
  /** When the first of its limits is reached at this rate, if that is before its day or month ends. */
  runsOut?: { at: Date; of: "day" | "month" };
}

/** Returns the cost of an hour: of the last 24 hours, or of the last seven days if nothing was spent in these. */
export function hourlyRate({ day, week }: Rates): number {
  return day > 0 ? (day * HOUR) / TIMES.day : (week * HOUR) / TIMES.week;
}

/** Returns what becomes of a budget if spending continues as it is. Days and months are those of UTC, as budgets have them. */
export function forecastOf(status: BudgetStatus, rates: Rates, now: Date): Forecast {
  const hourly = hourlyRate(rates);
  const midnight = Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() + 1);
  const monthEnd = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1);
  const spent = Number(status.spentThisMonthMicroUsd ?? 0);
  const month = spent + (hourly * (monthEnd - now.getTime())) / HOUR;
  const limits = [
    { of: "day", limit: status.budget?.dailyMicroUsd, spent: status.spentTodayMicroUsd, end: midnight },
    {
      of: "month",
      limit: status.budget?.monthlyMicroUsd,
      spent: status.spentThisMonthMicroUsd,
      end: monthEnd,
    },
  ] as const;
  let runsOut: Forecast["runsOut"];
  for (const { of, limit, spent, end } of limits) {
    const left = Number(limit ?? 0) - Number(spent ?? 0);
    // Without a limit nothing runs out, and what is exhausted is shown as that.
    if (Number(limit ?? 0) > 0 && left > 0 && hourly > 0) {
      const at = now.getTime() + (left / hourly) * HOUR;
      if (at < end && (!runsOut || at < runsOut.at.getTime())) {
        runsOut = { at: new Date(at), of };
      }
    }
  }
  return runsOut ? { hourly, month, runsOut } : { hourly, month };
}
