//! Time of workers to accept what a slow batch has assigned: they receive that after its write, and not at its time. Nothing else
//! waits for slow batches.

use std::time::Duration;

use rota_core::Timestamp;
use rota_core::task::Task;

use super::Engine;
use crate::Backend;

/// Least time from the begin of a batch until it is durable for which assignments are judged later.
const SLOW_BATCH: Duration = Duration::from_secs(1);
/// Most time that slow batches give, from the assignment: where they do not end, a worker that never accepts is found out as well.
const MAX_SLOW: Duration = Duration::from_mins(2);

impl<B: Backend> Engine<B> {
    /// Notes when a batch was durable, or had failed, by the clock that gave its time. Returns the next deadline of any task.
    pub fn durable(&mut self, began: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let memory = &mut self.memory;
        // A clock that was set back would hold assignments until it has caught up.
        if now.since(began) >= SLOW_BATCH || now < memory.accept_from {
            memory.accept_from = now;
            memory.restart_timers();
        }
        memory.next_due()
    }
}

/// Returns the deadline of a task on a worker, of which no assignment from before `accept_from` could be accepted earlier.
pub(super) fn due(task: &Task, accept_from: Timestamp) -> Option<Timestamp> {
    task.due_with_send_time(|at| at.max(accept_from.min(at + MAX_SLOW)))
}
