//! Ends of runs: the history, and the removal of tasks and workflows beyond it.

use std::sync::Arc;

use rota_proto::v1;
use tonic::Status;

use super::DEFAULT_HISTORY;
use super::driver::Driver;
use super::outcomes::{has_succeeded, observe};
use super::record::StoredStatus;
use super::registry::{Entry, Tracked};

/// Longest message of an ended run, in characters.
const MAX_MESSAGE: usize = 1000;

/// Removes the runs beyond the history. Returns those of them whose tasks and workflows are to be removed.
fn trim(status: &mut StoredStatus, history: Option<v1::ScheduleHistory>) -> Vec<v1::ScheduleRun> {
    let keeps_all = history.is_none();
    let limits =
        history.unwrap_or(v1::ScheduleHistory { succeeded: DEFAULT_HISTORY, failed: DEFAULT_HISTORY });
    let mut left = [limits.failed, limits.succeeded].map(|limit| usize::try_from(limit).unwrap_or(0));
    let mut removed = Vec::new();
    status.recent.retain(|run| {
        let left = &mut left[usize::from(has_succeeded(run))];
        if *left > 0 {
            *left -= 1;
            return true;
        }
        removed.push(run.clone());
        false
    });
    if keeps_all {
        removed.clear();
    }
    removed
}

impl Tracked {
    /// Adds a run that has ended to the history.
    pub(super) fn add_ended(&mut self, entry: &Entry, mut run: v1::ScheduleRun) {
        if let Some((end, _)) = run.message.char_indices().nth(MAX_MESSAGE) {
            run.message.truncate(end);
        }
        self.status.recent.insert(0, run);
        self.dirty = true;
        self.trim(entry);
    }

    /// Removes the runs beyond the history, their tasks and workflows with the next write.
    fn trim(&mut self, entry: &Entry) {
        let before = self.status.recent.len();
        self.removals.extend(trim(&mut self.status, entry.spec.history));
        self.dirty |= self.status.recent.len() < before;
    }
}

impl Driver {
    /// Takes in the ends of runs.
    pub(super) async fn settle_ended(&self, entry: &Arc<Entry>, tracked: &mut Tracked) -> Result<(), Status> {
        let mut ids = self.registry.take_ended(&entry.key());
        if !std::mem::replace(&mut tracked.verified, true) {
            ids = tracked.status.active.iter().map(|run| run.id().to_owned()).collect();
        }
        // The history may have become shorter.
        tracked.trim(entry);
        let mut left = ids.into_iter();
        while let Some(id) = left.next() {
            if let Err(status) = self.settle_one(entry, tracked, &id).await {
                // Looked at again after the delay.
                self.registry.note_ended(&entry.key(), &id);
                left.for_each(|id| self.registry.note_ended(&entry.key(), &id));
                return Err(status);
            }
        }
        if tracked.dirty { self.save(entry, tracked).await } else { Ok(()) }
    }

    async fn settle_one(&self, entry: &Arc<Entry>, tracked: &mut Tracked, id: &str) -> Result<(), Status> {
        let Some(at) = tracked.status.active.iter().position(|run| run.id() == id) else { return Ok(()) };
        let run = tracked.status.active[at].run.clone().unwrap_or_default();
        let observed = observe(&self.store, entry.namespace(), run.clone()).await?;
        if observed.is_some() {
            // A control plane that ended meanwhile may have left those before it.
            tracked.note_created(entry, at);
        }
        let ended = match observed {
            Some(observed) if !observed.is_over => return Ok(()),
            Some(observed) => observed.run,
            // It is created next.
            None if !tracked.status.active[at].created => return Ok(()),
            // Its outcome is unknown.
            None => {
                let kind = if run.workflow.is_empty() { "task" } else { "workflow" };
                v1::ScheduleRun { message: format!("the {kind} was removed"), ..run }
            }
        };
        tracked.status.active.remove(at);
        self.registry.unfollow(entry.namespace(), id);
        tracked.add_ended(entry, ended);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> String {
        uuid::Uuid::from_u128(u128::from(number)).to_string()
    }

    fn run(number: u8, state: v1::TaskState) -> v1::ScheduleRun {
        v1::ScheduleRun { task: id(number), state: state.into(), ..Default::default() }
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
        assert_eq!(removed.iter().map(|run| run.task.clone()).collect::<Vec<_>>(), [3, 4, 5].map(id));
        let recent = [v1::WorkflowState::Succeeded, v1::WorkflowState::Failed].map(|state| v1::ScheduleRun {
            workflow: id(9),
            workflow_state: state.into(),
            ..Default::default()
        });
        let mut status = StoredStatus { recent: recent.to_vec(), ..StoredStatus::default() };
        let removed = trim(&mut status, Some(v1::ScheduleHistory { succeeded: 0, failed: 1 }));
        assert_eq!((removed, status.recent), (recent[..1].to_vec(), recent[1..].to_vec()));
        let recent = (0..30).map(|number| run(number, Succeeded)).collect();
        let mut status = StoredStatus { recent, ..StoredStatus::default() };
        assert_eq!(trim(&mut status, None), []);
        assert_eq!(status.recent.len(), 10);
    }
}
