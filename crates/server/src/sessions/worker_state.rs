//! What a worker reports about itself and its machine, and not about its attempts.

use rota_proto::worker::v1::session_request::Kind;

use super::deps::{Opened, SessionDeps};
use super::hello;
use crate::clock::now;
use crate::wire::failure;

/// Takes in a heartbeat, a drain or a status. Ignores other messages.
pub(super) fn take(deps: &SessionDeps, opened: &Opened, kind: Kind) {
    let worker = &opened.key.1;
    match kind {
        Kind::Heartbeat(beat) => {
            deps.scheduler.update(&opened.key, &opened.worker, |entry| {
                entry.stats.cpu = if beat.cpu.is_finite() { beat.cpu.clamp(0.0, 1.0) } else { 0.0 };
                entry.stats.memory_bytes = beat.memory_bytes.max(0);
            });
        }
        Kind::Draining(draining) => {
            tracing::info!(worker = %worker, reason = failure::cut(draining.reason, 256), "worker is draining");
            deps.scheduler.update(&opened.key, &opened.worker, |entry| {
                entry.draining = true;
                entry.stats.record(now(), "draining", None);
            });
        }
        Kind::Status(status) => {
            let reason = failure::cut(status.not_ready_reason, 256);
            let changed = deps.scheduler.update(&opened.key, &opened.worker, |entry| {
                let changed = entry.stats.not_ready_reason != reason;
                if entry.stats.not_ready_reason.is_empty() != reason.is_empty() {
                    let what = if reason.is_empty() { "ready" } else { "not ready" };
                    tracing::info!(worker = %worker, reason, "worker is {what}");
                    entry.stats.record(now(), what, None);
                }
                entry.stats.not_ready_reason = reason;
                entry.stats.not_ready_alone = status.not_ready_alone;
                entry.stats.runtime_version = failure::cut(status.runtime_version, 128);
                entry.stats.runtime_missing = hello::missing(status.runtime_missing);
                changed
            });
            // Alerts and the health have its text.
            if changed == Some(true) {
                deps.scheduler.demand_changed();
            }
        }
        _ => {}
    }
}
