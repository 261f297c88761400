//! References to the latest changes of workflows, for a bounded number of them. The relay and watchers that are behind read
//! the records themselves; one that is further behind than the log reads everything again.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use rota_core::{Namespace, WorkflowId, WorkflowKey};
use rota_store::Commit;
use tokio::sync::Notify;

/// Number of changes that the log keeps.
const MAX_CHANGES: usize = 8192;
/// Changed approvals of a workflow, above which watchers of its namespace read everything again.
const MAX_APPROVALS: usize = 256;

/// Change of a workflow, or of its approvals, in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkflowChange {
    pub(crate) revision: u64,
    pub(crate) workflow: WorkflowKey,
    /// Its name, unless only steps have changed.
    pub(crate) name: Option<(Namespace, WorkflowId)>,
    /// Steps that wait for a person now, or do not any more.
    pub(crate) approvals: Vec<u32>,
    /// Whether these were too many to be named.
    pub(crate) resync: bool,
}

impl WorkflowChange {
    fn limit(&mut self) {
        if self.approvals.len() > MAX_APPROVALS {
            self.approvals = Vec::new();
            self.resync = true;
        }
    }
}

/// The log does not reach back to a position: everything is to be read again, and followed from this revision on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct WorkflowLog {
    changes: Mutex<Changes>,
    /// Wakes the relay when the log has new changes.
    marked: Notify,
}

#[derive(Debug, Default)]
struct Changes {
    /// All changes after `start` up to `end`, the oldest first.
    log: VecDeque<WorkflowChange>,
    start: u64,
    end: u64,
}

impl WorkflowLog {
    /// Creates the log of a control plane whose store has this revision.
    pub(super) fn new(began: u64) -> Self {
        let changes = Changes { log: VecDeque::new(), start: began, end: began };
        Self { changes: Mutex::new(changes), marked: Notify::new() }
    }

    /// Takes in a commit. Never waits.
    pub(super) fn observe(&self, commit: &Commit) {
        let mut all: HashMap<WorkflowKey, WorkflowChange> = HashMap::new();
        let change = |workflow| WorkflowChange {
            revision: commit.revision,
            workflow,
            name: None,
            approvals: Vec::new(),
            resync: false,
        };
        for workflow in &commit.workflows {
            let entry = all.entry(workflow.key).or_insert_with(|| change(workflow.key));
            entry.name = Some((workflow.namespace.clone(), workflow.id));
        }
        for step in commit.steps.iter().filter(|step| step.is_approval()) {
            all.entry(step.workflow).or_insert_with(|| change(step.workflow)).approvals.push(step.index);
        }
        let mut changes = self.changes.lock();
        changes.end = changes.end.max(commit.revision);
        if all.is_empty() {
            return;
        }
        changes.log.extend(all.into_values().map(|mut change| {
            change.limit();
            change
        }));
        while changes.log.len() > MAX_CHANGES {
            changes.start = changes.log.pop_front().map_or(changes.start, |oldest| oldest.revision);
        }
        drop(changes);
        self.marked.notify_one();
    }

    /// Waits until something may have changed.
    pub(crate) async fn changed(&self) {
        self.marked.notified().await;
    }

    /// Lets the relay look again.
    pub(crate) fn wake(&self) {
        self.marked.notify_one();
    }

    /// Returns the revision up to which the log is complete.
    pub(crate) fn end(&self) -> u64 {
        self.changes.lock().end
    }

    /// Returns the changes after a revision, one of each workflow in the order of the last, and the revision up to which these
    /// are all.
    pub(crate) fn after(&self, revision: u64) -> Result<(Vec<WorkflowChange>, u64), Gap> {
        let changes = self.changes.lock();
        if revision < changes.start {
            return Err(Gap(changes.end));
        }
        let from = changes.log.partition_point(|change| change.revision <= revision);
        let mut last: HashMap<WorkflowKey, WorkflowChange> = HashMap::new();
        for change in changes.log.range(from..) {
            let merged = last.entry(change.workflow).or_insert_with(|| change.clone());
            merged.revision = change.revision;
            merged.name = merged.name.take().or_else(|| change.name.clone());
            merged.approvals.extend(&change.approvals);
            merged.resync |= change.resync;
        }
        let mut all: Vec<_> = last.into_values().collect();
        for change in &mut all {
            change.approvals.sort_unstable();
            change.approvals.dedup();
            change.limit();
        }
        all.sort_unstable_by_key(|change| (change.revision, change.workflow));
        Ok((all, changes.end))
    }
}

impl Default for WorkflowLog {
    fn default() -> Self {
        Self::new(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rota_core::workflow::Workflow;
    use uuid::Uuid;

    use super::*;

    fn commit(revision: u64, keys: &[u64]) -> Commit {
        let workflow = |key: &u64| {
            let id = WorkflowId(Uuid::from_u128(u128::from(*key)));
            let workflow = Workflow::new(id, Namespace::new("n").unwrap());
            Arc::new(Workflow { key: WorkflowKey(*key), ..workflow })
        };
        Commit { revision, workflows: keys.iter().map(workflow).collect(), ..Commit::default() }
    }

    fn keys(found: Result<(Vec<WorkflowChange>, u64), Gap>) -> (Vec<(u64, u64)>, u64) {
        let (changes, end) = found.unwrap();
        (changes.iter().map(|change| (change.workflow.0, change.revision)).collect(), end)
    }

    #[test]
    fn last_change_of_each_workflow_counts() {
        let log = WorkflowLog::new(5);
        assert_eq!(keys(log.after(5)), (vec![], 5));
        log.observe(&commit(6, &[1, 2]));
        log.observe(&commit(7, &[]));
        log.observe(&commit(8, &[1]));
        assert_eq!(keys(log.after(5)), (vec![(2, 6), (1, 8)], 8));
        assert_eq!(keys(log.after(6)), (vec![(1, 8)], 8));
        assert_eq!(log.after(4), Err(Gap(8)), "before this run");
    }

    #[test]
    fn log_is_bounded() {
        let log = WorkflowLog::new(0);
        for revision in 1..=MAX_CHANGES as u64 + 10 {
            log.observe(&commit(revision, &[revision]));
        }
        assert_eq!(log.after(9), Err(Gap(MAX_CHANGES as u64 + 10)));
        assert_eq!(keys(log.after(10)).0.len(), MAX_CHANGES);
    }
}
