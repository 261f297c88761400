//! The loop behind every watch: opens a stream, passes its messages on, and opens it again when the connection is lost.
//! From where it resumes is up to the [`Source`].

use std::collections::VecDeque;

use backon::{BackoffBuilder, ExponentialBackoff};
use futures::future::BoxFuture;
use futures::stream;
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

use super::Watch;
use crate::retry::{backoff, is_retryable};
use crate::{Client, Error};

/// What is watched, and the position to resume from.
pub(super) trait Source: Send + 'static {
    type Message: Send + 'static;

    /// Opens the stream after the last message that was accepted.
    fn open(&self, client: &Client)
    -> BoxFuture<'static, Result<Response<Streaming<Self::Message>>, Status>>;

    /// Called when the stream was opened again.
    fn reopened(&mut self, _out: &mut VecDeque<Self::Message>) {}

    /// Advances the position by a message, and puts what the caller receives into `out`.
    fn accept(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>);

    /// Returns whether the watch is complete. `closed` means that the server ended the stream without an error.
    fn finished(&self, _closed: bool) -> bool {
        false
    }
}

struct ResumingStream<S: Source> {
    client: Client,
    source: S,
    open: Option<Streaming<S::Message>>,
    ready: VecDeque<S::Message>,
    /// Delays since the last message.
    backoff: Option<ExponentialBackoff>,
    /// Whether the server has ever answered. Before, a failure is one of the call; afterwards, the connection is lost.
    answered: bool,
    failing_since: Option<Instant>,
    ended: bool,
}

pub(super) fn run<S: Source>(client: Client, source: S) -> Watch<S::Message> {
    let state = ResumingStream {
        client,
        source,
        open: None,
        ready: VecDeque::new(),
        backoff: None,
        answered: false,
        failing_since: None,
        ended: false,
    };
    Box::pin(stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    }))
}

impl<S: Source> ResumingStream<S> {
    async fn next(&mut self) -> Option<Result<S::Message, Error>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if self.ended || self.source.finished(false) {
                return None;
            }
            let failure = match &mut self.open {
                None => match self.source.open(&self.client).await {
                    Ok(response) => {
                        self.open = Some(response.into_inner());
                        self.client.connection_error.send_if_modified(|error| error.take().is_some());
                        if std::mem::replace(&mut self.answered, true) {
                            tracing::info!(endpoint = self.client.endpoint(), "reconnected");
                            self.source.reopened(&mut self.ready);
                        }
                        continue;
                    }
                    Err(status) => status,
                },
                Some(open) => match open.message().await {
                    Ok(Some(message)) => {
                        (self.backoff, self.failing_since) = (None, None);
                        self.source.accept(message, &mut self.ready);
                        continue;
                    }
                    Ok(None) if self.source.finished(true) => return None,
                    Ok(None) => Status::unavailable("the server ended the stream"),
                    Err(status) => status,
                },
            };
            self.open = None;
            if let Err(error) = self.wait(failure).await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Waits before the next try, or returns the error if there is none.
    async fn wait(&mut self, failure: Status) -> Result<(), Error> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let is_first_failure = self.backoff.is_none();
        let may_retry = self.answered || since.elapsed() < self.client.options.retry_for;
        if !is_retryable(&failure) || !may_retry {
            return Err(self.client.error(failure));
        }
        if self.answered && is_first_failure {
            let error = self.client.error(failure);
            tracing::warn!(%error, "connection lost, retrying");
            self.client.connection_error.send_replace(Some(error.to_string()));
        }
        let delay = self.backoff.get_or_insert_with(|| backoff().build()).next();
        tokio::time::sleep(delay.unwrap_or_default()).await;
        Ok(())
    }
}
