import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { get, put } from "../../api/client";
import { Conflict, changeAsSeen, ifMatch, type Values } from "../../api/conflict";
import { useFeed } from "../../api/feed";
import { counted, id, query, usd } from "../../api/format";
import { visibleLine } from "../../api/plain";
import { overwrite, refresh } from "../../api/refresh";
import type { BudgetStatus, Spending, SpendingEntry } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { Acting } from "../../components/Acting";
import { Age, Moment } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Conflicted } from "../../components/Conflicted";
import { Heading } from "../../components/Heading";
import { More } from "../../components/More";
import { Problem } from "../../components/Problem";
import { optional, Table } from "../../components/Table";
import { useAct } from "../../components/useAct";
import { useNamespace } from "../../namespace";
import { Forecasts } from "./Forecasts";

/** Shortest time between two readings of the budgets. The feed has states and questions, not each message of a model: what a task
 * spends in between is shown with the next of them, or on a click. */
const PAUSE = 5000;
/** The control plane reads what was spent from its metrics once a minute, and pushes none of it. */
const INTERVAL = 60_000;
const DAYS = [1, 7, 30];
const QUEUE = "WHEN_EXHAUSTED_QUEUE";
const REFUSE = "WHEN_EXHAUSTED_REFUSE";
const WHEN = { [QUEUE]: "tasks wait", [REFUSE]: "tasks are refused" };

type Budget = NonNullable<BudgetStatus["budget"]>;

interface Page {
  budgets?: BudgetStatus[];
  nextPageToken?: string;
}

/** What agents and the namespace have spent, their budgets, and the costs of the past by day, agent and model. */
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
    refetchInterval: INTERVAL,
    queryFn: ({ signal }) => {
      const startTime = new Date(Date.now() - days * 86_400_000).toISOString();
      return get<Spending>(`namespaces/${namespace}/spending${query({ startTime })}`, signal);
    },
  });
  const readBudgets = useCoalesced(() => void refresh(cache, ["budgets", namespace]), PAUSE);
  const reload = () => {
    readBudgets();
    void refresh(cache, ["spending", namespace]);
  };
  useFeed({
    reload,
    receive: ({ task }) => {
      if (task?.status?.usage) {
        readBudgets();
      }
    },
  });
  const take = ({ status }: { status?: BudgetStatus }) =>
    overwrite<typeof budgets.data>(cache, ["budgets", namespace], (data) => {
      const [first, ...rest] = data?.pages ?? [];
      const others = (page: Page) => page.budgets?.filter(({ name }) => name !== status?.name) ?? [];
      return (
        data &&
        first &&
        status && {
          ...data,
          pages: [
            { ...first, budgets: [status, ...others(first)] },
            ...rest.map((page) => ({ ...page, budgets: others(page) })),
          ],
        }
      );
    });
  const all = budgets.data?.pages.flatMap((page) => page.budgets ?? []) ?? [];
  const own = all.find((one) => one.name === `namespaces/${namespace}`);
  const total = spending.data?.total;
  const ended = Number(total?.succeededTasks ?? 0) + Number(total?.failedTasks ?? 0);
  return (
    <>
      <Heading what="Costs and budgets" />
      <div className="bar">
        <button type="button" disabled={budgets.isFetching || spending.isFetching} onClick={reload}>
          Read again
        </button>
        {spending.data && (
          <span className="quiet">
            read <Age from={new Date(spending.dataUpdatedAt).toISOString()} /> ago; budgets again when a task
            changes its state
          </span>
        )}
      </div>
      <Problem error={budgets.error ?? spending.error} />
      {(budgets.isPending || spending.isPending) && <p role="status">Loading…</p>}
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
      <Forecasts budgets={all} />
      {budgets.isSuccess && (
        <Acting>
          <NamespaceBudget key={namespace} namespace={namespace} now={own} take={take} reload={reload} />
        </Acting>
      )}
      <h2>Spending</h2>
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
            {usd(total?.costMicroUsd)} spent, {counted(ended, "task")} ended
          </p>
          <Sums by="Day of UTC" rows={spending.data.days} />
          <Sums
            by="Agent"
            rows={spending.data.agents?.map((one) => ({ ...one, name: id(one.name) }))}
            others={spending.data.otherAgents}
          />
          <Sums by="Model" rows={spending.data.models} others={spending.data.otherModels} />
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

/** Sums by their names, and that of all others. Tasks are not counted by model. */
function Sums({
  by,
  rows = [],
  others,
}: {
  by: "Day of UTC" | "Agent" | "Model";
  rows: SpendingEntry[] | undefined;
  others?: SpendingEntry | undefined;
}) {
  const all = rows.map((row) => ({ ...row, name: row.name || "unknown" }));
  if (others) {
    all.push({ ...others, name: "all others" });
  }
  if (all.length === 0) {
    return null;
  }
  const hasTasks = by !== "Model";
  return (
    <Table
      label={`By ${by.toLowerCase()}`}
      heads={[by, "Cost", hasTasks && "Succeeded", hasTasks && "Failed", optional("Tokens")]}
    >
      {all.map((row) => (
        <tr key={row.name}>
          <td className="name">{visibleLine(row.name)}</td>
          <td>{usd(row.costMicroUsd)}</td>
          {hasTasks && <td>{row.succeededTasks ?? 0}</td>}
          {hasTasks && <td>{row.failedTasks ?? 0}</td>}
          <td className="optional">{Number(row.inputTokens ?? 0) + Number(row.outputTokens ?? 0)}</td>
        </tr>
      ))}
    </Table>
  );
}

/** Returns the budget of the namespace as it is now, if anything is known of it. */
async function readBudget(namespace: string): Promise<BudgetStatus | undefined> {
  const parent = `namespaces/${namespace}`;
  let pageToken: string | undefined = "";
  while (pageToken !== undefined) {
    const page: Page = await get<Page>(`${parent}/budgets${query({ pageSize: 1000, pageToken })}`);
    const own = page.budgets?.find((one) => one.name === parent);
    if (own) {
      return own;
    }
    pageToken = page.nextPageToken || undefined;
  }
  return undefined;
}

/** Returns what two people may have changed of a budget. */
function valuesOf(budget: Budget | undefined): Values {
  const limit = (micro: string | undefined) =>
    Number(micro ?? 0) > 0 ? `$${Number(micro) / 1e6}` : "no limit";
  return {
    "Dollars a day": limit(budget?.dailyMicroUsd),
    "Dollars a month": limit(budget?.monthlyMicroUsd),
    "When it is exhausted": WHEN[budget?.whenExhausted === REFUSE ? REFUSE : QUEUE],
  };
}

/** The budget of the namespace, to be changed. Those of agents are part of their specifications. */
function NamespaceBudget({
  namespace,
  now,
  take,
  reload,
}: {
  namespace: string;
  now: BudgetStatus | undefined;
  /** Gets the budget that was set: the next change depends on it. */
  take: (answer: { status?: BudgetStatus }) => Promise<void>;
  reload: () => void;
}) {
  const [problem, attempt] = useAct();
  const [saved, setSaved] = useState(false);
  // As it was when the person began to type: what is typed stays, whatever arrives meanwhile.
  const [seen, setSeen] = useState(now);
  const [isTyped, setTyped] = useState(false);
  if (!isTyped && seen !== now) {
    setSeen(now);
  }
  const act = async (call: Promise<unknown>) => {
    await attempt(call);
    setTyped(false);
    reload();
  };
  const set = async (budget: Budget | undefined, seen: BudgetStatus | undefined) => {
    await act(
      changeAsSeen<BudgetStatus>({
        what: `the budget of ${namespace}`,
        seen,
        read: () => readBudget(namespace),
        values: (status) => valuesOf(status?.budget),
        mine: valuesOf(budget),
        send: async (etag) => {
          const path = `namespaces/${namespace}/budget`;
          await take(await put<{ status?: BudgetStatus }>(path, budget ?? null, ifMatch(etag)));
        },
      }),
    );
    setSaved(true);
  };
  const dollars = (micro: string | undefined) => (micro && micro !== "0" ? Number(micro) / 1e6 : "");
  return (
    <>
      <form
        className="bar"
        aria-label="Budget of the namespace"
        key={JSON.stringify(seen?.budget)}
        onChange={() => {
          setSaved(false);
          setTyped(true);
        }}
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const micro = (name: string) => String(Math.round(Number(form.get(name) ?? 0) * 1e6));
          const budget: Budget = {
            dailyMicroUsd: micro("daily"),
            monthlyMicroUsd: micro("monthly"),
            whenExhausted: form.get("when") === REFUSE ? REFUSE : QUEUE,
          };
          void set(budget, seen).catch(() => {});
        }}
      >
        <label>
          Dollars a day
          <input
            name="daily"
            type="number"
            min="0"
            step="any"
            defaultValue={dollars(seen?.budget?.dailyMicroUsd)}
          />
        </label>
        <label>
          Dollars a month
          <input
            name="monthly"
            type="number"
            min="0"
            step="any"
            defaultValue={dollars(seen?.budget?.monthlyMicroUsd)}
          />
        </label>
        <label>
          When it is exhausted
          <select name="when" defaultValue={seen?.budget?.whenExhausted ?? QUEUE}>
            <option value={QUEUE}>{WHEN[QUEUE]}</option>
            <option value={REFUSE}>{WHEN[REFUSE]}</option>
          </select>
        </label>
        <button type="submit">Set budget</button>
        <span role="status">{saved && "Saved."}</span>
        <Problem error={problem instanceof Conflict ? undefined : problem} />
      </form>
      {problem instanceof Conflict && <Conflicted conflict={problem} act={act} />}
      <Confirm
        label="Remove budget"
        disabled={!now?.budget}
        question={`Let the namespace ${namespace} spend without a limit of its own?`}
        onConfirm={() => set(undefined, now)}
      />
    </>
  );
}
