//! Lets tasks look at the clock when their time comes. Sleeps until the next one that is due.

use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_store::{Command, Reply};
use rota_telemetry::loops::Beat;
use tokio::sync::watch;

use crate::shared::{Shared, now};

/// Tasks of one transaction.
const AT_ONCE: usize = 500;
/// Longest sleep: a clock that was set is noticed.
const LONGEST: Duration = Duration::from_secs(30);
/// Shortest wait after a look that did nothing, and after a failure.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(shared: Arc<Shared>, mut due: watch::Receiver<Option<Timestamp>>, beat: Beat) {
    loop {
        let next = *due.borrow_and_update();
        let sleep = next.map_or(LONGEST, |at| at.since(now()).min(LONGEST));
        tokio::select! {
            () = shared.stop.cancelled() => return,
            changed = due.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            () = tokio::time::sleep(sleep) => {}
        }
        if next.is_none_or(|at| at > now()) {
            continue;
        }
        let round = beat.round();
        let did = match shared.apply(Command::Tick { limit: AT_ONCE }).await {
            Ok(Reply::Ticked(count)) => {
                round.succeeded();
                count
            }
            Ok(_) => 0,
            Err(status) => {
                round.failed(status.message());
                0
            }
        };
        // The commit tells the next time; until it has come through, looking again is idle.
        if did < AT_ONCE {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                _ = due.changed() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}
