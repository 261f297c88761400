import type { TaskSearch } from "./filters";

const FAILURES = [
  "AGENT",
  "START",
  "TIMEOUT",
  "HANG",
  "CRASH",
  "WORKER_LOST",
  "AUTH",
  "RATE_LIMIT",
  "OVERLOAD",
  "REFUSAL",
  "BUDGET",
  "INVALID",
  "PROTOCOL",
  "DEPENDENCY",
  "QUEUE_TIMEOUT",
  "QUARANTINED",
  "ENVIRONMENT",
  "SOURCE",
  "DELIVERY",
  "SETUP",
  "CHECKS",
];
const TEXTS = [
  ["worker", "Worker"],
  ["thread", "Thread"],
  ["workflow", "Workflow id"],
  ["parent", "Parent id"],
] as const;
const DAYS = [
  ["since", "Created from (UTC)"],
  ["until", "Created before (UTC)"],
  ["endedSince", "Ended from (UTC)"],
  ["endedUntil", "Ended before (UTC)"],
] as const;
const NUMBERS = [
  ["minPriority", "Least priority", 1, 10],
  ["maxPriority", "Highest priority", 1, 10],
  ["minCost", "Least cost in $", "any", undefined],
  ["minAttempts", "Least attempts", 1, undefined],
] as const;

/** Filters of the list of tasks that few visits need. They are open as long as one of them is set. */
export function MoreFilters({ search }: { search: TaskSearch }) {
  const rare = [...TEXTS, ...DAYS, ...NUMBERS].some(([name]) => search[name] !== undefined);
  return (
    <details open={rare || search.failure !== undefined}>
      <summary>More filters</summary>
      <div className="bar">
        <label>
          Failure
          <select name="failure" defaultValue={search.failure ?? ""}>
            <option value="">any</option>
            {FAILURES.map((name) => (
              <option key={name} value={name}>
                {name.toLowerCase().replaceAll("_", " ")}
              </option>
            ))}
          </select>
        </label>
        {TEXTS.map(([name, label]) => (
          <label key={name}>
            {label}
            <input name={name} defaultValue={search[name]} size={12} />
          </label>
        ))}
        {DAYS.map(([name, label]) => (
          <label key={name}>
            {label}
            <input name={name} type="date" defaultValue={search[name]} />
          </label>
        ))}
        {NUMBERS.map(([name, label, step, max]) => (
          <label key={name}>
            {label}
            <input name={name} type="number" min={0} max={max} step={step} defaultValue={search[name]} />
          </label>
        ))}
      </div>
    </details>
  );
}
