import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { get, post } from "../../api/client";
import { id } from "../../api/format";
import type { Agent, Worker } from "../../api/types";
import { useStream } from "../../api/useStream";
import { Age } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Problem } from "../../components/Problem";
import { Scroll } from "../../components/Scroll";
import { useNamespace } from "../../namespace";

/** Agents with their demand, and the workers that serve them. */
export function AgentsPage() {
  const namespace = useNamespace();
  const cache = useQueryClient();
  const [problem, setProblem] = useState<unknown>();
  const parent = `namespaces/${namespace}`;
  const agents = useQuery({
    queryKey: ["agents", namespace],
    queryFn: ({ signal }) => get<{ agents?: Agent[] }>(`${parent}/agents?pageSize=200`, signal),
  });
  const workers = useQuery({
    queryKey: ["workers", namespace],
    queryFn: ({ signal }) => get<{ workers?: Worker[] }>(`${parent}/workers?pageSize=200`, signal),
  });
  const reload = () => {
    void cache.invalidateQueries({ queryKey: ["agents", namespace] });
    void cache.invalidateQueries({ queryKey: ["workers", namespace] });
  };
  const link = useStream(namespace, () => `${parent}/agents:watch`, reload, { opened: reload });
  const drain = (name: string) => {
    setProblem(undefined);
    post(`${name}:drain`).catch(setProblem);
  };
  return (
    <>
      <h1>Agents and workers</h1>
      <p role="status" className="quiet">
        {link === "lost" && "Connection lost, trying again."}
      </p>
      <Problem error={problem ?? agents.error ?? workers.error} />
      <Scroll label="Agents">
        <table>
          <thead>
            <tr>
              <th>Agent</th>
              <th>Workers</th>
              <th>Free slots</th>
              <th>Queued</th>
              <th>Running</th>
              <th>Message</th>
              <th>
                <span className="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {agents.data?.agents?.map((agent) => (
              <tr key={agent.name}>
                <td className="name">{id(agent.name)}</td>
                <td>
                  {agent.status?.workers ?? 0}
                  {agent.status?.drainingWorkers ? `, ${agent.status.drainingWorkers} draining` : ""}
                </td>
                <td>{agent.status?.freeSlots ?? 0}</td>
                <td>{agent.status?.queuedTasks ?? 0}</td>
                <td>{agent.status?.runningTasks ?? 0}</td>
                <td>{agent.status?.message}</td>
                <td>
                  <Confirm
                    label="Drain"
                    question={`Let all workers of ${id(agent.name)} end what they run, and take nothing new?`}
                    onConfirm={() => drain(agent.name ?? "")}
                  />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {agents.data && !agents.data.agents?.length && <p>There are no agents in this namespace.</p>}
      <h2>Workers</h2>
      <Scroll label="Workers">
        <table>
          <thead>
            <tr>
              <th>Worker</th>
              <th>Agent</th>
              <th>State</th>
              <th>Slots</th>
              <th>Succeeded</th>
              <th>Failed</th>
              <th className="optional">Seen</th>
            </tr>
          </thead>
          <tbody>
            {workers.data?.workers?.map((worker) => (
              <tr key={worker.name}>
                <td className="name">{id(worker.name)}</td>
                <td>{worker.agent}</td>
                <td>
                  {worker.notReadyReason ||
                    (worker.draining ? "draining" : worker.connected ? "connected" : "disconnected")}
                </td>
                <td>
                  {worker.tasks?.length ?? 0} of {worker.slots ?? 0}
                </td>
                <td>{worker.succeeded ?? 0}</td>
                <td>{worker.failed ?? 0}</td>
                <td className="optional">
                  <Age from={worker.lastSeenTime} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}
