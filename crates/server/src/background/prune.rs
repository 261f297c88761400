//! Removes what nobody needs any more, a few at a time; forgets followers that have gone.

use std::sync::Arc;
use std::time::Duration;

use rota_store::{Command, Prune, Reply};
use rota_telemetry::loops::Beat;

use crate::shared::{Shared, now};

const EVERY: Duration = Duration::from_secs(600);
/// How long a worker's epoch is remembered after its last session, so that nothing older speaks for it.
const LEFT: Duration = Duration::from_secs(24 * 3600);
/// Of each kind in one transaction: few, so that others hardly wait.
const AT_ONCE: usize = 200;

pub(super) async fn run(shared: Arc<Shared>, beat: Beat) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        shared.watchers.sweep();
        let ended_before = shared.timing.retention.map(|retention| now() - retention);
        let prune = Prune { ended_before, left_before: now() - LEFT, limit: AT_ONCE };
        loop {
            // A round each: there may be very much to remove, and that is no loop that hangs.
            let round = beat.round();
            match shared.apply(Command::Prune(prune)).await {
                Ok(Reply::Pruned(count)) if count >= AT_ONCE && !shared.stop.is_cancelled() => {
                    round.succeeded();
                }
                Ok(_) => break round.succeeded(),
                Err(status) => {
                    tracing::warn!(%status, "what is old could not be removed");
                    break round.failed(status.message());
                }
            }
        }
    }
}
