//! When a call is made again: when no server answered it, or one that is going away did.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tonic::{Code, Response, Status};

use crate::error::is_lost;
use crate::{Client, Error};

/// Whether a call that changes nothing when it is repeated should be.
pub(crate) fn worth_it(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_lost(status)
}

/// The waits between tries.
pub(crate) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
}

impl Client {
    /// Makes a call, and again for as long as [`crate::Options::retry_for`] says.
    pub(crate) async fn repeat<T, F>(&self, call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        call.retry(backoff().with_total_delay(Some(self.options.retry_for)))
            .when(worth_it)
            .await
            .map(Response::into_inner)
            .map_err(|status| self.error(status))
    }

    /// Makes a call once.
    pub(crate) async fn once<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        call.await.map(Response::into_inner).map_err(|status| self.error(status))
    }

    /// A status, said for people.
    pub fn error(&self, status: Status) -> Error {
        Error::new(status, &self.options.endpoint)
    }
}
