import type { components, paths } from "./schema";

type Schemas = components["schemas"];

export type Agent = Schemas["Agent"];
export type Alert = Schemas["Alert"];
export type ChangeTasksRequest = NonNullable<
  paths["/api/v1/namespaces/{namespace}/tasks:change"]["post"]["requestBody"]
>["content"]["application/json"];
export type ChangeTasksResponse = Schemas["ChangeTasksResponse"];
export type ListApprovalsResponse = Schemas["ListApprovalsResponse"];
export type LogHit = Schemas["LogHit"];
export type SearchTaskLogResponse = Schemas["SearchTaskLogResponse"];
export type Artifact = Schemas["Artifact"];
export type AttemptArtifacts = Schemas["AttemptArtifacts"];
export type FetchArtifactsResponse = Schemas["FetchArtifactsResponse"];
export type Attention = Schemas["Attention"];
export type BrowserSession = Schemas["BrowserSession"];
export type BudgetStatus = Schemas["BudgetStatus"];
export type Event = Schemas["Event"];
export type Failure = Schemas["Failure"];
export type StateChange = Schemas["StateChange"];
export type InputRequest = Schemas["InputRequest"];
export type MetricsHistory = Schemas["MetricsHistory"];
export type MetricsPoint = Schemas["MetricsPoint"];
export type Schedule = Schemas["Schedule"];
export type StepStatus = Schemas["StepStatus"];
export type Spending = Schemas["Spending"];
export type SpendingEntry = Schemas["SpendingEntry"];
export type SystemStatus = Schemas["SystemStatus"];
export type Task = Schemas["Task"];
export type SearchTasksResponse = Schemas["SearchTasksResponse"];
export type TaskFilter = Schemas["TaskFilter"];
export type TaskSpec = Schemas["TaskSpec"];
export type TaskInput = Schemas["TaskInput"];
export type WatchDemandResponse = Schemas["WatchDemandResponse"];
export type WorkerDemand = Schemas["WorkerDemand"];
export type WatchAgentsResponse = Schemas["WatchAgentsResponse"];
export type WatchTaskResponse = Schemas["WatchTaskResponse"];
export type WatchTasksResponse = Schemas["WatchTasksResponse"];
export type WatchWorkflowsResponse = Schemas["WatchWorkflowsResponse"];
export type WatchWorkflowResponse = Schemas["WatchWorkflowResponse"];
export type Worker = Schemas["Worker"];
export type WorkflowSpec = Schemas["WorkflowSpec"];
export type Workflow = Schemas["Workflow"];
export type Explanation = Schemas["ExplainTaskResponse"];
