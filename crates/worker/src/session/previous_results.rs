//! Results of dependencies that an assignment omits: fetched one by one before the attempt starts.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_proto::v1::{FailureClass, TaskResult};
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use rota_proto::worker::v1::{Assign, GetPreviousResultRequest};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::Options;
use super::connect::{ConnectError, Credentials, MAX_MESSAGE_BYTES};
use crate::runtimes::{RunOutcome, Stop, failure};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Client of the control plane for results.
pub(super) struct PreviousResults {
    channel: Channel,
    credentials: Credentials,
    worker: String,
}

impl PreviousResults {
    pub(super) fn new(options: &Options) -> Self {
        let credentials = Credentials { token: options.token.clone(), file: options.token_file.clone() };
        Self { channel: options.channel.clone(), credentials, worker: options.worker.clone() }
    }

    /// Completes an assignment. Waits for a control plane that is away, until a request to stop.
    pub(super) async fn complete(
        &self,
        assign: &mut Assign,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<(), RunOutcome> {
        if assign.previous.iter().all(|previous| !previous.omitted) {
            return Ok(());
        }
        tokio::select! {
            fetched = self.fetch_all(assign) => fetched.map_err(|status| {
                let message = format!("failed to fetch the result of a dependency: {}", status.message());
                RunOutcome::Failed(failure(FailureClass::Environment, message))
            }),
            _ = stop.wait_for(Option::is_some) => Err(RunOutcome::Stopped { by: "interrupt" }),
        }
    }

    async fn fetch_all(&self, assign: &mut Assign) -> Result<(), Status> {
        let (namespace, task_id, fence) = (assign.namespace.clone(), assign.task_id.clone(), assign.fence);
        for previous in assign.previous.iter_mut().filter(|previous| previous.omitted) {
            let request = GetPreviousResultRequest {
                namespace: namespace.clone(),
                worker: self.worker.clone(),
                task_id: task_id.clone(),
                fence,
                previous_task_id: previous.task_id.clone(),
            };
            // A cut connection has many codes; these are answers that another call would not change.
            let is_away = |status: &Status| {
                !matches!(
                    status.code(),
                    Code::NotFound
                        | Code::InvalidArgument
                        | Code::PermissionDenied
                        | Code::Unimplemented
                        | Code::DataLoss
                )
            };
            let retries =
                ExponentialBuilder::default().with_max_delay(CALL_TIMEOUT).with_jitter().without_max_times();
            previous.result = (|| self.fetch(request.clone())).retry(retries).when(is_away).await?;
            previous.omitted = false;
        }
        Ok(())
    }

    async fn fetch(&self, request: GetPreviousResultRequest) -> Result<Option<TaskResult>, Status> {
        let mut request = Request::new(request);
        request.set_timeout(CALL_TIMEOUT);
        match self.credentials.header().await {
            Ok(Some(header)) => drop(request.metadata_mut().insert("authorization", header)),
            Ok(None) => {}
            Err(ConnectError::Unreachable(message)) => return Err(Status::unavailable(message)),
            Err(_) => return Err(Status::permission_denied("the worker's token is not valid")),
        }
        let mut client =
            WorkerServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(client.get_previous_result(request).await?.into_inner().result)
    }
}
