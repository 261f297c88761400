//! Retry policy: a call is repeated if no server answered it, or one that is shutting down did.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;
use tonic::{Code, Response, Status};

use crate::error::is_lost;
use crate::{Client, Error};

/// Time after which a call that is still retried is reported.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// Whether repeating an idempotent call may help.
pub(crate) fn is_retryable(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_lost(status)
}

/// Backoff between tries, without a limit of their number.
pub(crate) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
}

impl Client {
    /// Executes an idempotent call with retries, for up to [`crate::Options::retry_for`].
    pub(crate) async fn repeat<T, F>(&self, call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (began, mut reported) = (Instant::now(), false);
        call.retry(backoff().with_total_delay(Some(self.options.retry_for)))
            .when(is_retryable)
            .notify(|status, _| {
                if began.elapsed() >= REPORT_AFTER && !std::mem::replace(&mut reported, true) {
                    let error = self.error(status.clone());
                    tracing::warn!(%error, "waiting for the control plane");
                }
            })
            .await
            .map(Response::into_inner)
            .map_err(|status| self.error(status))
    }

    /// Executes a call without retries.
    pub(crate) async fn once<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        call.await.map(Response::into_inner).map_err(|status| self.error(status))
    }

    /// Converts a status from one of the generated clients, with this client's endpoint in the message.
    pub fn error(&self, status: Status) -> Error {
        Error::new(status, &self.options.endpoint)
    }
}
