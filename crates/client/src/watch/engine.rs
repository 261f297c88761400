//! Opens a stream, hands its messages on, and opens it again when it was cut. What to ask for then
//! is the source's matter.

use std::collections::VecDeque;

use backon::{BackoffBuilder, ExponentialBackoff};
use futures::future::BoxFuture;
use futures::stream;
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

use super::Watch;
use crate::retry::{backoff, worth_it};
use crate::{Client, Error};

/// What is watched, and how far it has come.
pub(super) trait Source: Send + 'static {
    type Message: Send + 'static;

    /// Asks for what comes after all that was taken.
    fn open(&self, client: &Client)
    -> BoxFuture<'static, Result<Response<Streaming<Self::Message>>, Status>>;

    /// The stream is open, not for the first time.
    fn reopened(&mut self, _out: &mut VecDeque<Self::Message>) {}

    /// Takes a message; what the caller shall see goes to `out`.
    fn take(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>);

    /// Nothing more will come. `closed`: the server has ended the stream in order.
    fn finished(&self, _closed: bool) -> bool {
        false
    }
}

struct State<S: Source> {
    client: Client,
    source: S,
    open: Option<Streaming<S::Message>>,
    ready: VecDeque<S::Message>,
    /// Waits since the last message.
    waits: Option<ExponentialBackoff>,
    /// Whether a message ever came.
    ever: bool,
    /// Since when it fails.
    failing: Option<Instant>,
    ended: bool,
}

pub(super) fn run<S: Source>(client: Client, source: S) -> Watch<S::Message> {
    let state = State {
        client,
        source,
        open: None,
        ready: VecDeque::new(),
        waits: None,
        ever: false,
        failing: None,
        ended: false,
    };
    Box::pin(stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    }))
}

impl<S: Source> State<S> {
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
                        self.client.lost.send_if_modified(|lost| lost.take().is_some());
                        if self.ever {
                            tracing::info!(endpoint = self.client.endpoint(), "connected again");
                            self.source.reopened(&mut self.ready);
                        }
                        continue;
                    }
                    Err(status) => status,
                },
                Some(open) => match open.message().await {
                    Ok(Some(message)) => {
                        (self.ever, self.waits, self.failing) = (true, None, None);
                        self.source.take(message, &mut self.ready);
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

    /// Waits before the next try, or says that there is none.
    async fn wait(&mut self, failure: Status) -> Result<(), Error> {
        let since = *self.failing.get_or_insert_with(Instant::now);
        let first = self.waits.is_none();
        let patient = self.ever || since.elapsed() < self.client.options.retry_for;
        if !worth_it(&failure) || !patient {
            return Err(self.client.error(failure));
        }
        if self.ever && first {
            let error = self.client.error(failure);
            tracing::warn!(%error, "the connection was lost; trying again until it is back");
            self.client.lost.send_replace(Some(error.to_string()));
        }
        let wait = self.waits.get_or_insert_with(|| backoff().build()).next();
        tokio::time::sleep(wait.unwrap_or_default()).await;
        Ok(())
    }
}
