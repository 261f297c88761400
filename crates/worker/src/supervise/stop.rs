//! Request to end what runs for an attempt: programs, calls of git, waits for locks. Knows nothing of who asks.

use std::time::Duration;

use tokio::sync::watch;

/// Request to end an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Time until the attempt is killed.
    pub grace: Duration,
}

/// Waits for the request to end. Never returns if its sender is dropped without one.
pub(crate) async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await.map(|stop| *stop) {
        Ok(Some(stop)) => stop,
        _ => std::future::pending().await,
    }
}
