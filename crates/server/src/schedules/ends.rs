//! Ends of runs: their outcomes, the history, and the removal of tasks beyond it.

use std::sync::Arc;

use rota_core::TaskId;
use rota_core::task::Task;
use rota_proto::v1;
use rota_store::Command;
use tonic::Status;

use super::DEFAULT_HISTORY;
use super::driver::Driver;
use super::record::{StoredRun, StoredStatus};
use super::registry::{Entry, Tracked};
use crate::wire::{event, failure, time};

/// Returns an ended run. A task that is missing was removed, and its outcome is unknown.
fn ended(run: v1::ScheduleRun, task: Option<&Task>) -> v1::ScheduleRun {
    let Some(task) = task else {
        return v1::ScheduleRun { message: "the task was removed".to_owned(), ..run };
    };
    let message = task.failure.as_ref().map(|one| failure::to_wire(one).message).unwrap_or_default();
    v1::ScheduleRun {
        state: event::state(task.state).into(),
        end_time: task.ended_at.map(time::timestamp),
        message,
        ..run
    }
}

/// Removes the runs beyond the history. Returns their tasks.
fn trim(status: &mut StoredStatus, history: Option<v1::ScheduleHistory>) -> Vec<TaskId> {
    let keeps_tasks = history.is_none();
    let limits =
        history.unwrap_or(v1::ScheduleHistory { succeeded: DEFAULT_HISTORY, failed: DEFAULT_HISTORY });
    let mut left = [limits.failed, limits.succeeded].map(|limit| usize::try_from(limit).unwrap_or(0));
    let mut removed = Vec::new();
    status.recent.retain(|run| {
        let left = &mut left[usize::from(run.state() == v1::TaskState::Succeeded)];
        if *left > 0 {
            *left -= 1;
            return true;
        }
        removed.extend(run.task.parse::<TaskId>().ok());
        false
    });
    if keeps_tasks {
        removed.clear();
    }
    removed
}

impl Driver {
    /// Takes in the ends of runs.
    pub(super) async fn settle_ended(&self, entry: &Arc<Entry>, tracked: &mut Tracked) -> Result<(), Status> {
        let mut ids = self.registry.take_ended(&entry.key());
        if !std::mem::replace(&mut tracked.verified, true) {
            ids = tracked.status.active.iter().map(|run| run.task().to_owned()).collect();
        }
        let before = tracked.status.recent.len();
        let mut left = ids.into_iter();
        while let Some(id) = left.next() {
            if let Err(status) = self.settle_one(entry, tracked, &id).await {
                // Looked at again after the delay.
                self.registry.note_ended(&entry.key(), &id);
                left.for_each(|id| self.registry.note_ended(&entry.key(), &id));
                return Err(status);
            }
        }
        if tracked.status.recent.len() == before && !tracked.dirty {
            return Ok(());
        }
        let removed = trim(&mut tracked.status, entry.spec.history);
        tracked.removals.extend(removed);
        tracked.dirty = true;
        let removals: Vec<_> =
            tracked.removals.iter().map(|id| Command::RemoveTask((entry.namespace().clone(), *id))).collect();
        self.save(entry, tracked, removals).await?;
        tracked.removals.clear();
        Ok(())
    }

    async fn settle_one(&self, entry: &Arc<Entry>, tracked: &mut Tracked, id: &str) -> Result<(), Status> {
        let Some(at) = tracked.status.active.iter().position(|run| run.task() == id) else { return Ok(()) };
        let Ok(key) = id.parse::<TaskId>() else { return Ok(()) };
        let task = self.store.record(entry.namespace(), key).await?;
        let run: &mut StoredRun = &mut tracked.status.active[at];
        match &task {
            Some(task) if !task.state.is_final() => {
                run.created = true;
                return Ok(());
            }
            // It is created next.
            None if !run.created => return Ok(()),
            _ => {}
        }
        let removed = tracked.status.active.remove(at);
        self.registry.unfollow(entry.namespace(), key);
        tracked.status.recent.insert(0, ended(removed.run.unwrap_or_default(), task.as_ref()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u8, state: v1::TaskState) -> v1::ScheduleRun {
        let task = uuid::Uuid::from_u128(u128::from(number)).to_string();
        v1::ScheduleRun { task, state: state.into(), ..Default::default() }
    }

    #[test]
    fn history_keeps_the_newest_of_each_kind() {
        use v1::TaskState::{Cancelled, Failed, Succeeded};
        let states = [Succeeded, Failed, Succeeded, Cancelled, Succeeded, Failed];
        let recent = states.iter().zip(0..).map(|(state, number)| run(number, *state)).collect();
        let mut status = StoredStatus { recent, ..StoredStatus::default() };
        let removed = trim(&mut status, Some(v1::ScheduleHistory { succeeded: 2, failed: 1 }));
        let left: Vec<_> = status.recent.iter().map(v1::ScheduleRun::state).collect();
        assert_eq!(left, [Succeeded, Failed, Succeeded]);
        assert_eq!(removed.iter().map(|id| id.0.as_u128()).collect::<Vec<_>>(), [3, 4, 5]);
        let recent = (0..30).map(|number| run(number, Succeeded)).collect();
        let mut status = StoredStatus { recent, ..StoredStatus::default() };
        assert_eq!(trim(&mut status, None), []);
        assert_eq!(status.recent.len(), 10);
    }
}
