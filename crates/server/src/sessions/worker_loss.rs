//! Worker loss and the end of a session: disconnect, reconnect grace period, session expiry. A worker keeps its attempts
//! while the grace period (its lease) lasts; then its tasks are requeued under a new fence. A worker that has drained has
//! no grace period.

use std::time::Duration;

use rota_core::task::{Loss, WorkerRef};
use rota_store::EndSession;
use rota_telemetry::{OnExit, spawn};
use tokio::time::Instant;
use tonic::Status;

use super::deps::{Opened, SessionDeps};
use crate::keys::WorkerKey;
use crate::scheduler::WorkerEntry;

/// Delay before another attempt to record the end of a session while the store is unavailable.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Disconnects a worker whose stream has ended. It keeps its attempts for the reconnect grace period; then its session
/// expires.
pub(super) fn close(deps: &SessionDeps, opened: &Opened) {
    let drained = deps.scheduler.update(&opened.key, &opened.worker, |entry| {
        entry.session = None;
        (entry.draining && entry.attempts() == 0, entry.agent())
    });
    // Otherwise a newer session has taken its place.
    let Some((drained, agent)) = drained else { return };
    let (message, grace) = if drained {
        ("the worker drained and left", Duration::ZERO)
    } else {
        let grace = deps.agents.reconnect_grace(&agent).unwrap_or(deps.timing.reconnect_grace);
        ("the worker disconnected and did not reconnect within the grace period", grace)
    };
    expire_session_after(deps, &opened.key, opened.worker.clone(), grace, Loss::Died, message);
}

/// Expires a session unless its worker comes back within the grace period.
pub(crate) fn expire_session_after(
    deps: &SessionDeps,
    key: &WorkerKey,
    worker: WorkerRef,
    grace: Duration,
    loss: Loss,
    message: &'static str,
) {
    let (deps, key) = (deps.clone(), key.clone());
    let mut expires = Instant::now() + grace;
    spawn("session-grace", OnExit::Done, async move {
        loop {
            tokio::select! {
                // A control plane that stops expires no session, also without a grace period: the next one waits for the workers.
                biased;
                () = deps.stop.cancelled() => return,
                () = tokio::time::sleep_until(expires) => {}
            }
            let is_back = |entry: &WorkerEntry| entry.epoch != worker.epoch || entry.session.is_some();
            if deps.scheduler.inspect(&key, is_back) == Some(true) {
                return;
            }
            // While the store takes no writes, no worker can come back: the lease does not run.
            if let Some(later) = deps.store.write_health().held_until(grace) {
                expires = later;
                continue;
            }
            match expire_session(&deps, &key, worker.clone(), loss, message).await {
                Ok(_) => return,
                Err(status) => {
                    tracing::warn!(worker = %key.1, %status, "failed to expire a worker's session, retrying");
                    expires = Instant::now() + grace.max(RETRY_INTERVAL);
                }
            }
        }
    });
}

/// Ends a worker's session for good: its tasks are requeued. Returns how many. A worker that was draining has stopped as
/// planned.
pub(crate) async fn expire_session(
    deps: &SessionDeps,
    key: &WorkerKey,
    worker: WorkerRef,
    loss: Loss,
    message: &str,
) -> Result<usize, Status> {
    let known = deps.scheduler.update(key, &worker, |entry| (entry.draining, entry.stats.last_seen_at));
    let end = EndSession {
        namespace: key.0.clone(),
        session: worker.clone(),
        loss: if known.is_some_and(|(draining, _)| draining) { Loss::Planned } else { loss },
        seen: known.map(|(_, seen)| seen),
        message: message.to_owned(),
    };
    let freed = deps.store.end_session(end).await?;
    if deps.scheduler.remove(key, &worker) {
        deps.breakers.forget_worker(key);
        deps.metrics.session_ended();
    }
    tracing::info!(worker = %key.1, freed, message, "worker left");
    Ok(freed)
}
