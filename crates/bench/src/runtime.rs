//! Runtimes that do nothing and record when they were called.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rota_proto::v1::TaskResult;
use rota_worker::runtimes::{Attempt, Channels, RunOutcome, RunReport, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Record of the attempts that ran.
#[derive(Debug, Default)]
pub(crate) struct AttemptLog {
    done: watch::Sender<u64>,
    awaited: Mutex<HashMap<String, oneshot::Sender<Instant>>>,
}

impl AttemptLog {
    /// Returns the number of finished attempts.
    pub(crate) fn done(&self) -> u64 {
        *self.done.borrow()
    }

    /// Waits for a number of finished attempts.
    pub(crate) async fn reach(&self, done: u64) -> Result<(), watch::error::RecvError> {
        self.done.subscribe().wait_for(|now| *now >= done).await.map(drop)
    }

    /// Returns a receiver of the start time of a task's attempt.
    pub(crate) fn expect(&self, task: &str) -> oneshot::Receiver<Instant> {
        let (sender, receiver) = oneshot::channel();
        self.awaited.lock().insert(task.to_owned(), sender);
        receiver
    }
}

/// Runtime whose attempts succeed immediately.
pub(crate) struct Immediate(pub(crate) Arc<AttemptLog>);

#[async_trait]
impl Runtime for Immediate {
    async fn run(&self, attempt: &Attempt, _channels: &mut Channels) -> RunReport {
        let now = Instant::now();
        if let Some(waiter) = self.0.awaited.lock().remove(&attempt.assign.task_id) {
            let _ = waiter.send(now);
        }
        self.0.done.send_modify(|done| *done += 1);
        RunReport::new(RunOutcome::Succeeded(TaskResult::default()))
    }
}

/// Runtime whose attempts report their start and run until they are released, one per permit.
pub(crate) struct Gated {
    pub(crate) starts: mpsc::UnboundedSender<Instant>,
    pub(crate) permits: Arc<Semaphore>,
}

#[async_trait]
impl Runtime for Gated {
    async fn run(&self, _attempt: &Attempt, channels: &mut Channels) -> RunReport {
        let _ = self.starts.send(Instant::now());
        tokio::select! {
            permit = self.permits.acquire() => {
                permit.into_iter().for_each(tokio::sync::SemaphorePermit::forget);
                RunReport::new(RunOutcome::Succeeded(TaskResult::default()))
            }
            _ = channels.stop.wait_for(Option::is_some) => RunReport::new(RunOutcome::Stopped { by: "interrupt" }),
        }
    }
}
