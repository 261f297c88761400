//! Heartbeats, both ways, on a task of their own: never behind an agent's work.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_proto::worker::v1::{SessionRequest, session_request};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::metrics::Sampler;

/// When the control plane was last heard.
#[derive(Debug, Clone)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
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

/// How often, and how long nothing may be heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// Sends heartbeats until `over` is cancelled, and cancels it when nothing has been heard for too long.
pub(super) fn start(
    pace: Pace,
    sampler: Arc<Mutex<Sampler>>,
    out: mpsc::Sender<SessionRequest>,
    heard: Heard,
    over: CancellationToken,
) {
    spawn("heartbeat", OnExit::Done, async move {
        let mut beats = interval(pace.interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                () = sleep_until(heard.last() + pace.timeout) => {
                    if heard.last() + pace.timeout <= Instant::now() {
                        over.cancel();
                        return;
                    }
                }
                _ = beats.tick() => {
                    let sampler = Arc::clone(&sampler);
                    let sample = tokio::task::spawn_blocking(move || sampler.lock().sample()).await;
                    let beat = session_request::Kind::Heartbeat(sample.unwrap_or_default());
                    // If the last one is still there, another behind it says nothing more.
                    let _ = out.try_send(SessionRequest { kind: Some(beat) });
                }
            }
        }
    });
}
