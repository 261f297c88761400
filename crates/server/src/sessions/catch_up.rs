//! What a worker missed while it was away: cancels and inputs of the attempts that it still has.

use std::collections::HashMap;

use rota_core::TaskId;
use rota_core::task::{Body, Desired, Task};
use rota_store::Resumed;
use tonic::Status;

use super::deps::{Opened, SessionDeps};
use crate::store_client::LOG_PAGE;
use crate::wire::event;

/// Sends a worker what was requested of its running attempts while it was away. Records are read again: what was
/// committed between the session's opening and the worker's registration has not been sent.
pub(super) async fn catch_up(
    deps: &SessionDeps,
    opened: &Opened,
    resumed: &[Resumed],
    inputs: &HashMap<TaskId, u64>,
) -> Result<(), Status> {
    let live: Vec<_> = resumed.iter().filter(|attempt| attempt.live.is_some()).collect();
    let mut sent: HashMap<TaskId, u64> = inputs.clone();
    let mut first = true;
    loop {
        for attempt in &live {
            let Some(task) = deps.store.record(&opened.key.0, attempt.id).await? else { continue };
            let continues = task.fence == attempt.fence && task.assignment.is_some();
            if first && !continues {
                deps.dispatcher.cancel_stale_attempt(&opened.key, attempt.fence, &task);
            } else if first && task.desired == Desired::Cancelled {
                deps.dispatcher
                    .send_cancel(&task, "the task was cancelled while the worker was disconnected");
            } else if first
                && let Some(stopping) = task.assignment.as_ref().and_then(|a| a.stopping.as_deref())
            {
                deps.dispatcher.send_stop(&task, &stopping.failure.message);
            }
            if first
                && continues
                && let Some(session) = deps.scheduler.session_of(&task)
            {
                deps.deltas.ask(&opened.key, attempt.id, attempt.fence, &session);
            }
            let known = sent.entry(attempt.id).or_default();
            // The log is read only for inputs of this attempt: it may be large.
            if continues && let Some(after) = task.missed_inputs(*known) {
                resend_inputs(deps, &task, after).await?;
                *known = task.inputs;
            }
        }
        first = false;
        let missed = deps.scheduler.update(&opened.key, &opened.worker, |entry| {
            let missed = std::mem::take(&mut entry.missed_input);
            entry.catching_up = missed;
            missed
        });
        if missed != Some(true) {
            return Ok(());
        }
    }
}

async fn resend_inputs(deps: &SessionDeps, task: &Task, known: u64) -> Result<(), Status> {
    let mut after = 0;
    loop {
        let events = deps.store.events(task, after, LOG_PAGE).await?;
        let Some(last) = events.last() else { return Ok(()) };
        after = last.log_seq;
        for entry in &events {
            if let Body::Input { seq, payload } = &entry.body
                && *seq > known
                && *seq <= task.inputs
                && entry.attempt == task.attempt()
            {
                deps.dispatcher.resend_input(task, *seq, event::input(payload));
            }
        }
    }
}
