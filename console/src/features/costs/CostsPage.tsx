import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { get, put } from "../../api/client";
import { useFeed } from "../../api/feed";
import { id, query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import { refresh } from "../../api/refresh";
import type { BudgetStatus } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { Acting } from "../../components/Acting";
import { Age, Moment } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { More } from "../../components/More";
import { Problem } from "../../components/Problem";
import { optional, Table } from "../../components/Table";
import { useNamespace } from "../../namespace";
import { MOST, readSpending, type Spent } from "./spending";

/** Shortest time between two readings. The feed has states and questions, not each message of a model: what a task spends in
 * between is read with the next of them, or on a click. */
const PAUSE = 5000;
const DAYS = [1, 7, 30];

const usd = (micro: string | number | undefined) => `$${(Number(micro ?? 0) / 1e6).toFixed(2)}`;

interface Page {
  budgets?: BudgetStatus[];
  nextPageToken?: string;
}

/** What agents and the namespace have spent, their budgets, and the costs of recent tasks. */
export function CostsPage() {
  const namespace = useNamespace();
  const { days = 7 } = useSearch({ from: "/costs" });
  const cache = useQueryClient();
  const budgets = useInfiniteQuery({
    queryKey: ["budgets", namespace],
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      get<Page>(`namespaces/${namespace}/budgets${query({ pageSize: 200, pageToken: pageParam })}`, signal),
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const spending = useQuery({
    queryKey: ["spending", namespace, days],
    queryFn: ({ signal }) =>
      readSpending(namespace, new Date(Date.now() - days * 86_400_000), (path) => get(path, signal)),
  });
  const reload = useCoalesced(() => {
    void refresh(cache, ["budgets", namespace]);
    void refresh(cache, ["spending", namespace]);
  }, PAUSE);
  useFeed({ reload, receive: ({ task }) => task?.status?.usage && reload() });
  const all = budgets.data?.pages.flatMap((page) => page.budgets ?? []) ?? [];
  const own = all.find((one) => one.name === `namespaces/${namespace}`);
  return (
    <>
      <h1>Costs and budgets</h1>
      <div className="bar">
        <button type="button" disabled={budgets.isFetching || spending.isFetching} onClick={reload}>
          Read again
        </button>
        {spending.data && (
          <span className="quiet">
            read <Age from={new Date(spending.dataUpdatedAt).toISOString()} /> ago; again when a task changes
            its state
          </span>
        )}
      </div>
      <Problem error={budgets.error ?? spending.error} />
      {budgets.isSuccess && all.length === 0 && <p>Nothing was spent, and there are no budgets.</p>}
      {all.length > 0 && (
        <Table
          label="Budgets"
          heads={["Of", "Today", "This month", "Reserved", optional("Usual attempt"), "Room"]}
        >
          {all.map((one) => (
            <tr key={one.name}>
              <td className="name">
                {one.name?.includes("/agents/") ? id(one.name) : `namespace ${id(one.name)}`}
              </td>
              <td>
                <Used
                  what={`Today of ${id(one.name)}`}
                  micro={one.spentTodayMicroUsd}
                  limit={one.budget?.dailyMicroUsd}
                />
              </td>
              <td>
                <Used
                  what={`This month of ${id(one.name)}`}
                  micro={one.spentThisMonthMicroUsd}
                  limit={one.budget?.monthlyMicroUsd}
                />
              </td>
              <td>{usd(one.reservedMicroUsd)}</td>
              <td className="optional">{Number(one.usualMicroUsd ?? 0) > 0 && usd(one.usualMicroUsd)}</td>
              <td>
                {one.exhaustedUntil ? (
                  <span className="problem">
                    exhausted until <Moment at={one.exhaustedUntil} />
                  </span>
                ) : (
                  "yes"
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
      <More of={budgets} what="budgets" />
      {budgets.isSuccess && (
        <Acting>
          <NamespaceBudget key={namespace} namespace={namespace} now={own} reload={reload} />
        </Acting>
      )}
      <h2>Recent tasks</h2>
      <nav className="choices" aria-label="Time">
        {DAYS.map((one) => (
          <Link key={one} to="/costs" search={{ days: one }} aria-current={one === days ? "page" : undefined}>
            {one === 1 ? "1 day" : `${one} days`}
          </Link>
        ))}
      </nav>
      {spending.data && (
        <>
          <p>
            {usd(spending.data.micro)} by {spending.data.tasks} tasks
            {spending.data.more && (
              <span className="problem"> (only the newest {MOST} of this time are counted)</span>
            )}
          </p>
          <Sums by="Day of UTC" rows={spending.data.days} />
          <Sums by="Agent" rows={spending.data.agents} />
          <Sums by="Model" rows={spending.data.models} />
        </>
      )}
    </>
  );
}

/** What was spent, of a limit if there is one. */
function Used({
  what,
  micro,
  limit,
}: {
  what: string;
  micro: string | undefined;
  limit: string | undefined;
}) {
  if (!limit || limit === "0") {
    return usd(micro);
  }
  return (
    <>
      {usd(micro)} of {usd(limit)}{" "}
      <progress aria-label={what} value={Math.min(1, Number(micro ?? 0) / Number(limit))} />
    </>
  );
}

function Sums({ by, rows }: { by: string; rows: Spent[] }) {
  if (rows.length === 0) {
    return null;
  }
  return (
    <Table
      label={`By ${by.toLowerCase()}`}
      heads={[by, "Cost", "Tasks", "Succeeded", "Failed", optional("Tokens")]}
    >
      {rows.map((row) => (
        <tr key={row.name}>
          <td className="name">{visibleLine(row.name)}</td>
          <td>{usd(row.micro)}</td>
          <td>{row.tasks}</td>
          <td>{row.succeeded}</td>
          <td>{row.failed}</td>
          <td className="optional">{row.tokens}</td>
        </tr>
      ))}
    </Table>
  );
}

/** The budget of the namespace, to be changed. Those of agents are part of their specifications. */
function NamespaceBudget({
  namespace,
  now,
  reload,
}: {
  namespace: string;
  now: BudgetStatus | undefined;
  reload: () => void;
}) {
  const [problem, setProblem] = useState<unknown>();
  const [saved, setSaved] = useState(false);
  const set = async (budget: unknown) => {
    setProblem(undefined);
    try {
      await put(`namespaces/${namespace}/budget`, budget);
      setSaved(true);
      reload();
    } catch (error) {
      setProblem(error);
      throw error;
    }
  };
  const dollars = (micro: string | undefined) => (micro && micro !== "0" ? Number(micro) / 1e6 : "");
  return (
    <>
      <form
        className="bar"
        aria-label="Budget of the namespace"
        key={JSON.stringify(now?.budget)}
        onChange={() => setSaved(false)}
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const micro = (name: string) => String(Math.round(Number(form.get(name) ?? 0) * 1e6));
          const budget = {
            dailyMicroUsd: micro("daily"),
            monthlyMicroUsd: micro("monthly"),
            whenExhausted: form.get("when"),
          };
          void set(budget).catch(() => {});
        }}
      >
        <label>
          Dollars a day
          <input
            name="daily"
            type="number"
            min="0"
            step="0.01"
            defaultValue={dollars(now?.budget?.dailyMicroUsd)}
          />
        </label>
        <label>
          Dollars a month
          <input
            name="monthly"
            type="number"
            min="0"
            step="0.01"
            defaultValue={dollars(now?.budget?.monthlyMicroUsd)}
          />
        </label>
        <label>
          When it is exhausted
          <select name="when" defaultValue={now?.budget?.whenExhausted ?? "WHEN_EXHAUSTED_QUEUE"}>
            <option value="WHEN_EXHAUSTED_QUEUE">tasks wait</option>
            <option value="WHEN_EXHAUSTED_REFUSE">tasks are refused</option>
          </select>
        </label>
        <button type="submit">Set budget</button>
        <span role="status">{saved && "Saved."}</span>
        <Problem error={problem} />
      </form>
      <Confirm
        label="Remove budget"
        disabled={!now?.budget}
        question={`Let the namespace ${namespace} spend without a limit of its own?`}
        onConfirm={() => set(null)}
      />
    </>
  );
}
