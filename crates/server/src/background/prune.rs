//! Removes tasks that ended long ago, a few at a time; forgets followers that have gone.

use std::sync::Arc;
use std::time::Duration;

use rota_store::{Command, Reply};

use crate::shared::{Shared, now};

const EVERY: Duration = Duration::from_secs(600);
/// Tasks of one transaction: few, so that others hardly wait.
const AT_ONCE: usize = 200;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        shared.watchers.sweep();
        let Some(retention) = shared.timing.retention else { continue };
        let before = now() - retention;
        loop {
            match shared.apply(Command::Prune { before, limit: AT_ONCE }).await {
                Ok(Reply::Pruned(AT_ONCE)) if !shared.stop.is_cancelled() => {}
                Ok(_) => break,
                Err(status) => {
                    tracing::warn!(%status, "old tasks could not be removed");
                    break;
                }
            }
        }
    }
}
