//! Waits for a state, with a time limit.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Polling interval for states that cannot be watched.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Polls `look` until it returns a value. Panics with `what` after `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        // `look` itself may hang.
        match timeout(end.saturating_duration_since(Instant::now()), look()).await {
            Ok(Some(found)) => return found,
            Ok(None) if Instant::now() < end => sleep(POLL_INTERVAL).await,
            _ => panic!("not within {limit:?}: {what}"),
        }
    }
}

/// Polls `look` for a while. Panics with `what` when it returns false.
pub async fn holds(what: &str, during: Duration, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        assert!(look().await, "no longer: {what}");
        sleep(POLL_INTERVAL).await;
    }
}
