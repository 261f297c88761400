//! Following a workflow, against a server that closes every stream without an error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use rota_proto::v1::workflow_service_server::{WorkflowService, WorkflowServiceServer};
use rota_proto::v1::{self, WorkflowState};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::{Out, client_of};

const ALIAS: &str = "namespaces/default/workflows/alias";
const ID: &str = "namespaces/default/workflows/id-1";

#[derive(Default)]
struct Script {
    /// Messages of each stream to come.
    streams: VecDeque<Vec<v1::WatchWorkflowResponse>>,
    names: Vec<String>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

#[tonic::async_trait]
impl WorkflowService for Fake {
    type WatchWorkflowStream = Out<v1::WatchWorkflowResponse>;
    type WatchWorkflowsStream = Out<v1::WatchWorkflowsResponse>;

    async fn watch_workflow(
        &self,
        request: Request<v1::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        let mut script = self.0.lock().unwrap();
        script.names.push(request.into_inner().name);
        let messages = script.streams.pop_front().ok_or_else(|| Status::not_found("no more"))?;
        Ok(Response::new(futures::stream::iter(messages.into_iter().map(Ok)).boxed()))
    }

    async fn watch_workflows(
        &self,
        _: Request<v1::WatchWorkflowsRequest>,
    ) -> Result<Response<Self::WatchWorkflowsStream>, Status> {
        Err(Status::unimplemented("watch_workflows"))
    }

    unused! {
        create_workflow(v1::CreateWorkflowRequest) -> v1::Workflow;
        get_workflow(v1::GetWorkflowRequest) -> v1::Workflow;
        list_workflows(v1::ListWorkflowsRequest) -> v1::ListWorkflowsResponse;
        list_workflow_steps(v1::ListWorkflowStepsRequest) -> v1::ListWorkflowStepsResponse;
        list_approvals(v1::ListApprovalsRequest) -> v1::ListApprovalsResponse;
        explain_workflow(v1::ExplainWorkflowRequest) -> v1::ExplainWorkflowResponse;
        cancel_workflow(v1::CancelWorkflowRequest) -> v1::Workflow;
        pause_workflow(v1::PauseWorkflowRequest) -> v1::Workflow;
        resume_workflow(v1::ResumeWorkflowRequest) -> v1::Workflow;
        decide_step(v1::DecideStepRequest) -> v1::DecideStepResponse;
        resolve_compensation(v1::ResolveCompensationRequest) -> v1::ResolveCompensationResponse;
        signal_workflow(v1::SignalWorkflowRequest) -> v1::SignalWorkflowResponse;
        add_workflow_step(v1::AddWorkflowStepRequest) -> v1::AddWorkflowStepResponse;
        rerun_workflow(v1::RerunWorkflowRequest) -> v1::Workflow;
        delete_workflow(v1::DeleteWorkflowRequest) -> pbjson_types::Empty;
    }
}

fn message(state: WorkflowState, steps: usize) -> v1::WatchWorkflowResponse {
    let status = v1::WorkflowStatus { state: state.into(), ..Default::default() };
    v1::WatchWorkflowResponse {
        workflow: Some(v1::Workflow { name: ID.to_owned(), status: Some(status), ..Default::default() }),
        steps: vec![v1::StepStatus::default(); steps],
    }
}

#[tokio::test]
async fn workflow_is_followed_to_its_last_message() {
    use WorkflowState::{Running, Succeeded};
    let fake = Fake::default();
    // The last one, without steps, has the outputs.
    let expected = [(Running, 1), (Running, 1), (Succeeded, 1), (Succeeded, 1), (Succeeded, 0)];
    let [first, second, early, third, last] = expected.map(|(state, steps)| message(state, steps));
    fake.0.lock().unwrap().streams = VecDeque::from([vec![first], vec![second, early], vec![third, last]]);
    let client = client_of(Routes::new(WorkflowServiceServer::new(fake.clone()))).await;
    let seen = |message: v1::WatchWorkflowResponse| {
        let status = message.workflow.and_then(|workflow| workflow.status).unwrap_or_default();
        (status.state(), message.steps.len())
    };
    let items: Vec<_> = client.follow_workflow(ALIAS).collect().await;
    let items: Vec<_> = items.into_iter().map(|item| item.map(seen).map_err(|error| error.code)).collect();
    assert_eq!(items, expected.map(Ok));
    // The alias is resolved once.
    assert_eq!(fake.0.lock().unwrap().names, [ALIAS, ID, ID]);
}
