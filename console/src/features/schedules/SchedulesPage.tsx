import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { ActionKeys } from "../../api/actionKeys";
import { get, patch, post } from "../../api/client";
import { useFeed, useWorkflowFeed } from "../../api/feed";
import { placeOf, query } from "../../api/format";
import { visible, visibleLine } from "../../api/plain";
import { refresh } from "../../api/refresh";
import type { Schedule } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { troubleOf } from "../../api/useStream";
import { Acting } from "../../components/Acting";
import { Age, Moment } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Heading } from "../../components/Heading";
import { More } from "../../components/More";
import { Problem } from "../../components/Problem";
import { State } from "../../components/State";
import { hidden, Table } from "../../components/Table";
import { useAct } from "../../components/useAct";
import { useNamespace } from "../../namespace";

/** Next times that are shown of a schedule. */
const TIMES = 3;

interface Page {
  schedules?: Schedule[];
  nextPageToken?: string;
}

/** Schedules with their next times and last runs. */
export function SchedulesPage() {
  const namespace = useNamespace();
  const cache = useQueryClient();
  const [problem, attempt] = useAct();
  const found = useInfiniteQuery({
    queryKey: ["schedules", namespace],
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      get<Page>(`namespaces/${namespace}/schedules${query({ pageSize: 100, pageToken: pageParam })}`, signal),
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const reload = useCoalesced(() => void refresh(cache, ["schedules", namespace]));
  // Each run is a task or a workflow: one that begins or ends changes its schedule.
  const link = useFeed({ reload, receive: ({ events }) => events?.some((event) => event.state) && reload() });
  useWorkflowFeed({ reload, receive: reload });
  const act = (call: Promise<unknown>) => attempt(call.finally(reload));
  const schedules = found.data?.pages.flatMap((page) => page.schedules ?? []) ?? [];
  return (
    <>
      <Heading what="Schedules" />
      <p role="status" className="quiet">
        {troubleOf(link)}
      </p>
      <Problem error={problem ?? found.error} />
      {found.isPending && <p role="status">Loading…</p>}
      {found.isSuccess && schedules.length === 0 && (
        <p>
          There are no schedules in this namespace. Create one with <code>rota schedule create</code>.
        </p>
      )}
      {schedules.length > 0 && (
        <Table label="Schedules" heads={["Schedule", "Times", "Next", "Last run", hidden("Actions")]}>
          {schedules.map((schedule) => (
            <Row key={schedule.name} schedule={schedule} act={act} />
          ))}
        </Table>
      )}
      <More of={found} what="schedules" />
    </>
  );
}

function Row({ schedule, act }: { schedule: Schedule; act: (call: Promise<unknown>) => Promise<void> }) {
  const [keys] = useState(() => new ActionKeys());
  const { name = "", spec = {}, status = {} } = schedule;
  const { namespace, id: own } = placeOf(name);
  const running = status.active ?? [];
  const last = running.at(-1) ?? status.recent?.[0];
  const pause = (paused: boolean) => act(patch(`${name}?updateMask=spec.paused`, { name, spec: { paused } }));
  return (
    <tr>
      <td className="name">
        {own}
        {status.problem && <p className="problem">{visible(status.problem)}</p>}
        {status.lastSkip && (
          <p className="quiet">
            {status.skipped} skipped, last <Age from={status.lastSkip.scheduleTime} /> ago:{" "}
            {visible(status.lastSkip.reason)}
          </p>
        )}
      </td>
      <td>
        <code>{visibleLine(spec.cron)}</code>
        <br />
        <span className="quiet">{visibleLine(spec.timeZone) || "UTC"}</span>
      </td>
      <td>
        {spec.paused ? (
          "paused"
        ) : (
          <ul className="plain">
            {status.nextTimes?.slice(0, TIMES).map((time) => (
              <li key={time}>
                <Moment at={time} />
              </li>
            ))}
          </ul>
        )}
      </td>
      <td>
        {last?.task ? (
          <Link
            to="/tasks/$namespace/$id"
            params={{ namespace, id: last.task }}
            aria-label={`Last run of ${own}`}
          >
            <State value={last.state} prefix="TASK_STATE_" />
          </Link>
        ) : last?.workflow ? (
          <Link
            to="/workflows/$namespace/$id"
            params={{ namespace, id: last.workflow }}
            aria-label={`Last run of ${own}`}
          >
            <State value={last.workflowState} prefix="WORKFLOW_STATE_" />
          </Link>
        ) : (
          visible(last?.message)
        )}
        {last && (
          <span className="quiet">
            {" "}
            <Age from={last.scheduleTime} /> ago
          </span>
        )}
        {running.length > 1 && <p className="quiet">{running.length} run</p>}
      </td>
      <td>
        <span className="choices">
          <Acting>
            <button
              type="button"
              aria-label={`${spec.paused ? "Resume" : "Pause"} ${own}`}
              onClick={() => void pause(!spec.paused).catch(() => {})}
            >
              {spec.paused ? "Resume" : "Pause"}
            </button>
          </Acting>
          <Confirm
            label="Run now"
            name={`Run now: ${own}`}
            question={`Run ${own} now, in addition to its times?`}
            onConfirm={() =>
              act(keys.during("run", (idempotencyKey) => post(`${name}:run`, { idempotencyKey })))
            }
          />
        </span>
      </td>
    </tr>
  );
}
