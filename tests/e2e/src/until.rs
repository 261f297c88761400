//! Waits for a state, with a limit.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How often a state is looked at where nobody tells of it.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until `look` gives something, and panics with `what` when that takes too long.
pub async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        // A look may hang: that counts too.
        match timeout(end.saturating_duration_since(Instant::now()), look()).await {
            Ok(Some(found)) => return found,
            Ok(None) if Instant::now() < end => sleep(PAUSE).await,
            _ => panic!("not within {limit:?}: {what}"),
        }
    }
}

/// Looks on for a while, and panics with `what` as soon as `look` gives false.
pub async fn holds(what: &str, during: Duration, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        assert!(look().await, "no longer: {what}");
        sleep(PAUSE).await;
    }
}
