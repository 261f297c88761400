import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import { post } from "../../api/client";
import { id } from "../../api/format";
import type { StepStatus, WatchWorkflowResponse, Workflow } from "../../api/types";
import { useStream } from "../../api/useStream";
import { Age } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Problem } from "../../components/Problem";
import { Scroll } from "../../components/Scroll";
import { State } from "../../components/State";

const ENDED = /SUCCEEDED|FAILED|CANCELLED/;

export function WorkflowPage() {
  const { namespace, id: workflow } = useParams({ from: "/workflows/$namespace/$id" });
  return (
    <OneWorkflow key={`${namespace}/${workflow}`} name={`namespaces/${namespace}/workflows/${workflow}`} />
  );
}

/** One workflow: its steps as a table that follows the run, with decisions in place. */
function OneWorkflow({ name }: { name: string }) {
  const [workflow, setWorkflow] = useState<Workflow>();
  const [steps, setSteps] = useState<ReadonlyMap<string, StepStatus>>(new Map());
  const [problem, setProblem] = useState<unknown>();
  const state = workflow?.status?.state ?? "";
  const link = useStream<WatchWorkflowResponse>(
    name,
    () => `${name}:watch`,
    (message) => {
      if (message.workflow) {
        setWorkflow(message.workflow);
      }
      const changed = message.steps ?? [];
      if (changed.length > 0) {
        setSteps((steps) => new Map([...steps, ...changed.map((step) => [step.name ?? "", step] as const)]));
      }
    },
    { isOver: () => ENDED.test(state) },
  );
  const act = (verb: string, body: unknown = {}) => {
    setProblem(undefined);
    post(`${name}:${verb}`, body).catch(setProblem);
  };
  if (!workflow) {
    return (
      <p role="status">
        {link === "ended" ? "There is no such workflow, or it is not yours to see." : "Loading…"}
      </p>
    );
  }
  const sorted = [...steps.values()].sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
  return (
    <>
      <h1>{workflow.spec?.title || workflow.alias || id(name)}</h1>
      <div className="bar">
        <State value={state} prefix="WORKFLOW_STATE_" />
        {workflow.status?.paused && <span>paused</span>}
        {!ENDED.test(state) && (
          <>
            {workflow.status?.paused ? (
              <button type="button" onClick={() => act("resume")}>
                Resume
              </button>
            ) : (
              <button type="button" onClick={() => act("pause")}>
                Pause
              </button>
            )}
            <Confirm
              label="Cancel"
              question="Cancel this workflow and its running tasks?"
              onConfirm={() => act("cancel", { reason: "by a person" })}
            />
          </>
        )}
        {ENDED.test(state) && (
          <Confirm
            label="Run again"
            question="Run all steps of this workflow again?"
            onConfirm={() => act("rerun", { idempotencyKey: crypto.randomUUID() })}
          />
        )}
        <span role="status" className="quiet">
          {link === "lost" && "Connection lost, trying again."}
        </span>
      </div>
      <Problem error={problem} />
      {workflow.status?.message && <p className="problem">{workflow.status.message}</p>}
      <Scroll label="Steps">
        <table>
          <thead>
            <tr>
              <th>State</th>
              <th>Step</th>
              <th>Tasks</th>
              <th>Time</th>
              <th>Details</th>
            </tr>
          </thead>
          <tbody>
            {sorted.map((step) => (
              <tr key={step.name}>
                <td>
                  <State value={step.state} prefix="STEP_STATE_" />
                </td>
                <td className="name">
                  {step.lastTask ? (
                    <Link
                      to="/tasks/$namespace/$id"
                      params={{ namespace: name.split("/")[1] ?? "", id: id(step.lastTask) }}
                    >
                      {step.name}
                    </Link>
                  ) : (
                    step.name
                  )}
                  {(step.round ?? 0) > 1 && ` (round ${step.round})`}
                </td>
                <td>{step.tasksTotal ? `${step.tasksSucceeded ?? 0} of ${step.tasksTotal}` : ""}</td>
                <td>
                  <Age from={step.startTime} to={step.endTime} />
                </td>
                <td>
                  {step.message} {step.prompt}
                  {step.state === "STEP_STATE_RUNNING" && step.prompt !== undefined && !step.tasksTotal && (
                    <div className="choices">
                      <button
                        type="button"
                        className="primary"
                        onClick={() => act("decide", { step: step.name, decision: "STEP_DECISION_APPROVE" })}
                      >
                        Approve {step.name}
                      </button>
                      <button
                        type="button"
                        onClick={() => act("decide", { step: step.name, decision: "STEP_DECISION_REJECT" })}
                      >
                        Reject {step.name}
                      </button>
                    </div>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}
