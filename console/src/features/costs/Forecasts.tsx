import { useQueries } from "@tanstack/react-query";
import { get } from "../../api/client";
import { id, usd } from "../../api/format";
import type { BudgetStatus } from "../../api/types";
import { Moment } from "../../components/Age";
import { optional, Table } from "../../components/Table";
import { forecastOf, isLimited, readRates } from "./forecast";

/** Budgets that are forecast: the first ones. */
const MOST = 50;
/** Time after which the metrics are read again, in milliseconds. */
const INTERVAL = 5 * 60_000;

/** What becomes of each budget if spending continues as it is. */
export function Forecasts({ budgets }: { budgets: BudgetStatus[] }) {
  const limited = budgets.filter(isLimited).slice(0, MOST);
  const rates = useQueries({
    queries: limited.map((status) => ({
      queryKey: ["rates", status.name],
      staleTime: INTERVAL,
      refetchInterval: INTERVAL,
      queryFn: ({ signal }: { signal: AbortSignal }) =>
        readRates(status, Date.now(), (path) => get(path, signal)),
    })),
  });
  const rows = limited.flatMap((status, index) => {
    const rate = rates[index]?.data;
    return rate ? [{ status, forecast: forecastOf(status, rate, new Date()) }] : [];
  });
  if (rows.length === 0) {
    return null;
  }
  return (
    <>
      <h2>Forecast</h2>
      <p className="quiet">
        At the rate of the last 24 hours, or of the last seven days if nothing was spent in these.
      </p>
      <Table label="Forecast" heads={["Of", optional("An hour"), "This month", "Runs out"]}>
        {rows.map(({ status, forecast }) => (
          <tr key={status.name}>
            <td className="name">
              {status.name?.includes("/agents/") ? id(status.name) : `namespace ${id(status.name)}`}
            </td>
            <td className="optional">{usd(forecast.hourly)}</td>
            <td>{usd(forecast.month)}</td>
            <td>
              {forecast.runsOut ? (
                <>
                  <Moment at={forecast.runsOut.at.toISOString()} />, of the {forecast.runsOut.of}
                </>
              ) : status.exhaustedUntil ? (
                "exhausted"
              ) : (
                "not at this rate"
              )}
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}
