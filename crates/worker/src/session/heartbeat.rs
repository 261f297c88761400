//! Heartbeats in both directions, on a task of their own so that no other work delays them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_proto::worker::v1::{SessionRequest, session_request};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::metrics::Sampler;

/// Time of the last message from the control plane.
#[derive(Debug, Clone)]
pub(super) struct LastReceived(Arc<Mutex<Instant>>);

impl LastReceived {
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock()
    }
}

/// Heartbeat interval and receive timeout, as set by the control plane.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeartbeatTiming {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// Sends heartbeats until `closed` is cancelled, and cancels it when the receive timeout expires.
pub(super) fn start(
    timing: HeartbeatTiming,
    sampler: Arc<Mutex<Sampler>>,
    out: mpsc::Sender<SessionRequest>,
    last_received: LastReceived,
    closed: CancellationToken,
) {
    spawn("heartbeat", OnExit::Done, async move {
        let mut ticks = interval(timing.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // After a restart of the control plane all workers connect at the same moment. They must not sample in step.
        let mut offset = Some(timing.interval.mul_f64(rand::random::<f64>()));
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                () = sleep_until(last_received.last() + timing.timeout) => {
                    if last_received.last() + timing.timeout <= Instant::now() {
                        closed.cancel();
                        return;
                    }
                }
                _ = ticks.tick() => {
                    if let Some(offset) = offset.take() {
                        ticks.reset_after(offset);
                    }
                    let sampler = Arc::clone(&sampler);
                    let sample = tokio::task::spawn_blocking(move || sampler.lock().sample()).await;
                    let heartbeat = session_request::Kind::Heartbeat(sample.unwrap_or_default());
                    // A heartbeat still in the buffer serves as well as this one.
                    let _ = out.try_send(SessionRequest { kind: Some(heartbeat) });
                }
            }
        }
    });
}
