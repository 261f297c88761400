//! Results of dependencies that an assignment omits: fetched one by one before the attempt starts.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_proto::v1::{FailureClass, Severity, TaskResult, event};
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use rota_proto::worker::v1::{Assign, FetchPreviousResultRequest};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::Options;
use super::connect::{ConnectError, Credentials, MAX_MESSAGE_BYTES};
use super::handle::AttemptHandle;
use crate::runtimes::{RunOutcome, failure, notice};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Calls that may fail with an error of [`Retry::Few`]; they take about 5 s.
const MAX_REFUSALS: u32 = 5;

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
        handle: &AttemptHandle,
        events: &mpsc::Sender<event::Kind>,
    ) -> Result<(), RunOutcome> {
        if assign.previous.iter().all(|previous| !previous.omitted) {
            return Ok(());
        }
        let mut stop = handle.stop_signal();
        tokio::select! {
            fetched = self.fetch_all(assign, handle, events) => fetched.map_err(|status| {
                let class = match status.code() {
                    // No worker and no further attempt will get it.
                    Code::NotFound | Code::DataLoss => FailureClass::Invalid,
                    _ => FailureClass::Environment,
                };
                RunOutcome::Failed(failure(class, describe(&status)))
            }),
            _ = stop.wait_for(Option::is_some) => Err(RunOutcome::Stopped { by: "interrupt" }),
        }
    }

    async fn fetch_all(
        &self,
        assign: &mut Assign,
        handle: &AttemptHandle,
        events: &mpsc::Sender<event::Kind>,
    ) -> Result<(), Status> {
        let (namespace, task_id, fence) = (assign.namespace.clone(), assign.task_id.clone(), assign.fence);
        let mut noticed = false;
        for previous in assign.previous.iter_mut().filter(|previous| previous.omitted) {
            let request = FetchPreviousResultRequest {
                namespace: namespace.clone(),
                worker: self.worker.clone(),
                task_id: task_id.clone(),
                fence,
                previous_task_id: previous.task_id.clone(),
            };
            let retries = ExponentialBuilder::default()
                .with_min_delay(MIN_RETRY_DELAY)
                .with_max_delay(CALL_TIMEOUT)
                .with_jitter()
                .without_max_times();
            let mut refusals = 0;
            let may_retry = |status: &Status| match Retry::of(status.code()) {
                Retry::Unlimited => true,
                Retry::Few => {
                    refusals += 1;
                    refusals < MAX_REFUSALS
                }
                Retry::Never => false,
            };
            let report = |status: &Status, delay| {
                handle.lock().obstacle = Some(describe(status));
                if !std::mem::replace(&mut noticed, true) {
                    let dependency = &request.previous_task_id;
                    tracing::warn!(task = task_id, dependency, %status, retry_delay = ?delay, "failed to fetch a dependency's result, retrying");
                    let text = format!("{}; retrying", describe(status));
                    // A full channel has events that show as well that the attempt is alive.
                    let _ = events.try_send(notice(Severity::Medium, "previous_result_retry", text));
                }
            };
            previous.result =
                Some((|| self.fetch(request.clone())).retry(retries).when(may_retry).notify(report).await?);
            previous.omitted = false;
            handle.lock().obstacle = None;
        }
        Ok(())
    }

    async fn fetch(&self, request: FetchPreviousResultRequest) -> Result<TaskResult, Status> {
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
        let answer = client.fetch_previous_result(request).await?.into_inner();
        answer.result.ok_or_else(|| Status::data_loss("the control plane's answer has no result"))
    }
}

/// How often a call is repeated after an error.
#[derive(Debug, PartialEq, Eq)]
enum Retry {
    /// The control plane is away or overloaded: a cut connection has many codes.
    Unlimited,
    /// Waiting rarely helps: a token that is being rotated, a control plane that is being upgraded.
    Few,
    Never,
}

impl Retry {
    fn of(code: Code) -> Self {
        match code {
            Code::NotFound | Code::InvalidArgument => Self::Never,
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Internal
            | Code::FailedPrecondition
            | Code::DataLoss
            | Code::Unimplemented => Self::Few,
            _ => Self::Unlimited,
        }
    }
}

fn describe(status: &Status) -> String {
    format!("failed to fetch the result of a dependency: {} ({:?})", status.message(), status.code())
}
