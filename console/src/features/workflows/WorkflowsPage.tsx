import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useCallback, useMemo } from "react";
import { get } from "../../api/client";
import { useWorkflowFeed, WORKFLOWS } from "../../api/feed";
import { placeOf, query } from "../../api/format";
import { refresh } from "../../api/refresh";
import type { WatchWorkflowsResponse, Workflow } from "../../api/types";
import { troubleOf } from "../../api/useStream";
import { Age } from "../../components/Age";
import { Heading } from "../../components/Heading";
import { More } from "../../components/More";
import { Problem } from "../../components/Problem";
import { State } from "../../components/State";
import { Table } from "../../components/Table";
import { isNewest, useUnseen } from "../../components/unseen";
import { useRows } from "../../components/useRows";
import { useNamespace } from "../../namespace";
import { nameOf } from "./name";

interface Page {
  workflows?: Workflow[];
  nextPageToken?: string;
}

/** Returns a page after a change of one of its workflows. */
function withChange(page: Page, { workflow, deleted }: WatchWorkflowsResponse): Page {
  const change = (one: Workflow) =>
    one.name !== workflow?.name ? [one] : workflow && !deleted ? [workflow] : [];
  return { ...page, workflows: page.workflows?.flatMap(change) ?? [] };
}

/** The workflows of a namespace, newest first. Rows change where they are; new workflows wait for a click. */
export function WorkflowsPage() {
  const namespace = useNamespace();
  const navigate = useNavigate();
  const cache = useQueryClient();
  const key = useMemo(() => ["workflows", namespace], [namespace]);
  const found = useInfiniteQuery({
    queryKey: key,
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) => {
      const path = `namespaces/${namespace}/workflows${query({ pageSize: 100, pageToken: pageParam })}`;
      return WORKFLOWS.changes.during(() => get<Page>(path, signal), withChange);
    },
    getNextPageParam: (page) => page.nextPageToken || undefined,
  });
  const workflows = useMemo(
    () => found.data?.pages.flatMap((page) => page.workflows ?? []) ?? [],
    [found.data],
  );
  const { count: unseen, set: setUnseen, reset: resetUnseen } = useUnseen(workflows);
  const reload = useCallback(() => {
    resetUnseen();
    void refresh(cache, key);
  }, [cache, key, resetUnseen]);
  const link = useWorkflowFeed({
    reload,
    receive: (message) => {
      const { workflow, deleted } = message;
      if (!workflow) {
        return;
      }
      if (!workflows.some((one) => one.name === workflow.name)) {
        // Older ones are on further pages.
        setUnseen(workflow.name, !deleted && isNewest(workflow, workflows));
        return;
      }
      cache.setQueryData<typeof found.data>(
        key,
        (data) => data && { ...data, pages: data.pages.map((page) => withChange(page, message)) },
      );
    },
  });
  const open = useCallback(
    ({ name }: Workflow) => {
      void navigate({ to: "/workflows/$namespace/$id", params: placeOf(name) });
    },
    [navigate],
  );
  const current = useRows(workflows, open);
  return (
    <>
      <Heading what="Workflows" />
      <p>
        <Link to="/workflows/new">New workflow</Link>
      </p>
      <div className="bar">
        <span className="quiet" role="status">
          {troubleOf(link)}
        </span>
        {unseen && (
          <button type="button" onClick={reload}>
            Show {unseen} new
          </button>
        )}
      </div>
      <Problem error={found.error ?? (link.state === "ended" ? link.error : undefined)} />
      {found.isPending && <p role="status">Loading…</p>}
      {found.isSuccess && workflows.length === 0 && <p>There are no workflows in this namespace.</p>}
      {workflows.length > 0 && (
        <Table label="Workflows" heads={["State", "Workflow", "Steps", "Age"]}>
          {workflows.map((workflow) => (
            <tr key={workflow.name} aria-current={workflow.name === current}>
              <td>
                <State value={workflow.status?.state} prefix="WORKFLOW_STATE_" />
                {workflow.status?.waitsForGroup && <span className="quiet"> waits for its group</span>}
              </td>
              <td className="name">
                <Link to="/workflows/$namespace/$id" params={placeOf(workflow.name)}>
                  {nameOf(workflow)}
                </Link>
              </td>
              <td>
                {workflow.status?.counts?.succeeded ?? 0} of {workflow.status?.counts?.total ?? 0}
              </td>
              <td>
                <Age from={workflow.createTime} />
              </td>
            </tr>
          ))}
        </Table>
      )}
      <More of={found} what="workflows" />
    </>
  );
}
