//! Request to end what runs for an attempt: programs, calls of git, waits for locks. Knows nothing of who asks.

use std::time::Duration;

use tokio::sync::watch;

/// Request to end an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub cause: StopCause,
    /// Time until the attempt is killed.
    pub grace: Duration,
}

/// Reason of a request to end, as far as runtimes are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    Cancelled,
    Timeout,
    /// It exceeded its silence timeout.
    Silence,
    /// It was superseded, or the worker is shutting down.
    Abandoned,
}

/// Waits for the request to end. Never returns if its sender is dropped without one.
pub(crate) async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await.map(|stop| stop.clone()) {
        Ok(Some(stop)) => stop,
        _ => std::future::pending().await,
    }
}
