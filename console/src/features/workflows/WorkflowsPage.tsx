import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { get } from "../../api/client";
import { id } from "../../api/format";
import type { Workflow } from "../../api/types";
import { Age } from "../../components/Age";
import { Problem } from "../../components/Problem";
import { Scroll } from "../../components/Scroll";
import { State } from "../../components/State";
import { useNamespace } from "../../namespace";
import { nameOf } from "./name";

/** The newest workflows of a namespace. */
export function WorkflowsPage() {
  const namespace = useNamespace();
  const found = useQuery({
    queryKey: ["workflows", namespace],
    queryFn: ({ signal }) =>
      get<{ workflows?: Workflow[] }>(`namespaces/${namespace}/workflows?pageSize=100`, signal),
    // There is no feed of all workflows.
    refetchInterval: 5000,
  });
  const workflows = found.data?.workflows ?? [];
  return (
    <>
      <h1>Workflows</h1>
      <Problem error={found.error} />
      {found.isSuccess && workflows.length === 0 && <p>There are no workflows in this namespace.</p>}
      {workflows.length > 0 && (
        <Scroll label="Workflows">
          <table>
            <thead>
              <tr>
                <th>State</th>
                <th>Workflow</th>
                <th>Steps</th>
                <th>Age</th>
              </tr>
            </thead>
            <tbody>
              {workflows.map((workflow) => (
                <tr key={workflow.name}>
                  <td>
                    <State value={workflow.status?.state} prefix="WORKFLOW_STATE_" />
                  </td>
                  <td className="name">
                    <Link
                      to="/workflows/$namespace/$id"
                      params={{ namespace: workflow.name?.split("/")[1] ?? "", id: id(workflow.name) }}
                    >
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
            </tbody>
          </table>
        </Scroll>
      )}
    </>
  );
}
