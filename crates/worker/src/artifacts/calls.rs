//! Calls to the control plane outside the session, as this worker.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_client::artifacts::Artifacts;
use rota_client::{Auth, RenewableChannel, Token};
use rota_proto::reasons;
use rota_proto::v1::{ArtifactList, Failure, FailureClass};
use rota_proto::worker::v1::KeepArtifactsRequest;
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::keep::Kept;
use crate::report::failure;

/// Size limit of an answer: results and lists of artifacts.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const MIN_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Reasons that hold for every worker and every attempt, of codes that do not show it.
const FINAL: [&str; 3] = [reasons::ARTIFACT_NOT_STORED, reasons::NO_CHECKPOINT, reasons::OVERRIDE_FORBIDDEN];

/// Makes calls with the worker's credentials, which are read for each: clusters rotate them.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) channel: RenewableChannel,
    pub(crate) token: Token,
    /// Name by which the control plane knows the worker.
    pub(crate) worker: String,
}

impl Caller {
    /// Returns a client of the worker service.
    pub(crate) fn service(&self) -> Result<WorkerServiceClient<InterceptedService<Channel, Auth>>, Status> {
        let transport = InterceptedService::new(self.channel.get(), Auth::new(&self.token)?);
        Ok(WorkerServiceClient::new(transport).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Returns access to the artifacts of a namespace. Its calls are repeated while no server answers: their caller sets the
    /// limit.
    pub(super) fn artifacts(&self, namespace: &str) -> Result<Artifacts, Status> {
        self.artifacts_within(namespace, Duration::MAX)
    }

    /// Returns the same whose calls are repeated for a time, since the last progress of a transfer.
    pub(super) fn artifacts_within(&self, namespace: &str, limit: Duration) -> Result<Artifacts, Status> {
        let auth = Auth::new(&self.token)?;
        Ok(Artifacts::over(self.channel.get(), auth, namespace, limit))
    }

    /// Has the control plane keep the list of an attempt, in place of an earlier one. Returns parts that it has not, in which case it
    /// keeps nothing; `None` if the attempt counts no more.
    pub(super) async fn keep_list(
        &self,
        kept: &Kept,
        list: ArtifactList,
    ) -> Result<Option<Vec<Vec<u8>>>, Status> {
        let request = KeepArtifactsRequest {
            namespace: kept.namespace.clone(),
            worker: self.worker.clone(),
            task_id: kept.task_id.clone(),
            fence: kept.fence,
            artifacts: Some(list),
        };
        let call = || async { self.service()?.keep_artifacts(Self::request(request.clone())).await };
        match call.retry(Retry::backoff()).when(Retry::decide()).await {
            Err(status) if status.code() == Code::NotFound => Ok(None),
            answer => Ok(Some(answer?.into_inner().missing_parts)),
        }
    }

    /// Returns the failure of an attempt that could not do `what` because of the control plane. Neither the worker nor the task is to
    /// blame, and the task waits, unless the answer would be the same for every other attempt.
    pub(crate) fn failure(what: &str, status: &Status) -> Failure {
        let is_final = match status.code() {
            Code::NotFound | Code::InvalidArgument | Code::OutOfRange | Code::DataLoss => true,
            _ => rota_client::reason(status).is_some_and(|reason| FINAL.contains(&&*reason)),
        };
        let class = if is_final { FailureClass::Invalid } else { FailureClass::Source };
        let hint = rota_client::hint_of(status).unwrap_or_default();
        let text = format!("{what}: {} ({:?})", status.message(), status.code());
        Failure { hint, ..failure(class, text) }
    }

    pub(crate) fn request<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }
}

/// How often a call is repeated after an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The control plane is away or overloaded: a cut connection has many codes.
    Unlimited,
    /// Waiting rarely helps: a token that is being rotated, a control plane that is being upgraded.
    Few,
    Never,
}

impl Retry {
    /// Calls that may fail with an error of [`Retry::Few`]; they take about 5 s.
    const MAX_REFUSALS: u32 = 5;

    pub(crate) fn of(status: &Status) -> Self {
        match status.code() {
            // A quota, or a volume that people must make room on. A connection, or a proxy, may be exhausted for a moment.
            Code::ResourceExhausted if rota_client::reason(status).is_some() => Self::Never,
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

    /// Decides after each error of one call whether it is repeated.
    pub(crate) fn decide() -> impl FnMut(&Status) -> bool {
        let mut refusals = 0;
        move |status| match Self::of(status) {
            Self::Unlimited => true,
            Self::Few => {
                refusals += 1;
                refusals < Self::MAX_REFUSALS
            }
            Self::Never => false,
        }
    }

    pub(crate) fn backoff() -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(MIN_RETRY_DELAY)
            .with_max_delay(CALL_TIMEOUT)
            .with_jitter()
            .without_max_times()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    #[test]
    fn answers_for_every_attempt_end_the_task() {
        use Code::{
            Aborted, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument,
            NotFound, OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable,
            Unimplemented, Unknown,
        };
        let waits = [
            (Aborted, None),
            (Cancelled, None),
            (DeadlineExceeded, None),
            (FailedPrecondition, None),
            (FailedPrecondition, Some("TASK_STATE_CONFLICT")),
            (Internal, None),
            (PermissionDenied, None),
            (ResourceExhausted, None),
            (Unauthenticated, Some("UNAUTHENTICATED")),
            (Unavailable, None),
            (Unimplemented, None),
            (Unknown, None),
        ];
        let ends = [
            (DataLoss, Some("STORE_CORRUPT")),
            (FailedPrecondition, Some(reasons::ARTIFACT_NOT_STORED)),
            (FailedPrecondition, Some(reasons::NO_CHECKPOINT)),
            (FailedPrecondition, Some(reasons::OVERRIDE_FORBIDDEN)),
            (InvalidArgument, None),
            (NotFound, Some("TASK_NOT_FOUND")),
            (OutOfRange, None),
        ];
        let waits = waits.map(|row| (row, FailureClass::Source));
        let ends = ends.map(|row| (row, FailureClass::Invalid));
        for ((code, reason), class) in waits.into_iter().chain(ends) {
            let metadata = HashMap::from([("hint".to_owned(), "do this".to_owned())]);
            let status = match reason {
                Some(reason) => {
                    let details = ErrorDetails::with_error_info(reason, "rota.dev", metadata);
                    Status::with_error_details(code, "why", details)
                }
                None => Status::new(code, "why"),
            };
            let failure = Caller::failure("failed to ask", &status);
            assert_eq!(failure.class(), class, "{code:?} {reason:?}");
            assert_eq!(failure.message, format!("failed to ask: why ({code:?})"));
            assert_eq!(failure.hint.is_empty(), reason.is_none(), "{code:?} {reason:?}");
        }
    }
}
