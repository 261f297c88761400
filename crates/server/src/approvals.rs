//! Index of the steps of workflows that wait for a person: kept from commits, and read from the store after a start.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::WorkflowKey;
use rota_core::workflow::Step;
use rota_store::{Commit, Error, StepKey, Store, WorkflowQuery};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::store_client::StoreClient;

/// Steps of one page that is read after a start.
const PAGE: usize = 500;
const RETRY_DELAY: Duration = Duration::from_secs(10);
/// Noted as the outermost workflow of those whose records cannot be decoded: no list has their steps.
pub(crate) const UNDECODABLE: WorkflowKey = WorkflowKey(u64::MAX);

#[derive(Debug, Default)]
pub(crate) struct Approvals {
    known: Mutex<Known>,
    /// Set once the store was read to its end.
    is_read: SetOnce<()>,
}

/// Workflows whose steps are listed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of {
    All,
    Workflow(WorkflowKey),
    /// A workflow with those below it, which are newer. Those of other outermost workflows are left out, as far as they are known.
    Below {
        workflow: WorkflowKey,
        root: WorkflowKey,
    },
}

#[derive(Debug, Default)]
struct Known {
    waiting: BTreeSet<StepKey>,
    /// Outermost workflows of those whose steps wait, as readers have found them.
    roots: HashMap<WorkflowKey, WorkflowKey>,
    /// The steps that wait by the outermost workflow, as far as it is known.
    by_root: BTreeSet<(Option<WorkflowKey>, StepKey)>,
    /// What commits have changed since a page was asked of the store, which may have older records of it.
    changed: Option<Changed>,
}

#[derive(Debug, Default)]
struct Changed {
    steps: BTreeSet<StepKey>,
    removed: BTreeSet<WorkflowKey>,
}

impl Known {
    fn apply(&mut self, step: &Step) {
        let key = (step.workflow, step.index);
        let root = self.roots.get(&step.workflow).copied();
        match step.awaits_decision() {
            true => {
                self.waiting.insert(key);
                self.by_root.insert((root, key));
            }
            false => {
                self.waiting.remove(&key);
                self.by_root.remove(&(root, key));
                if self.of(step.workflow).next().is_none() {
                    self.roots.remove(&step.workflow);
                }
            }
        }
    }

    /// Returns the steps below an outermost workflow, or those of which that is not known: of a workflow and of newer ones, before a step.
    fn below(
        &self,
        root: Option<WorkflowKey>,
        workflow: WorkflowKey,
        before: Option<StepKey>,
    ) -> impl DoubleEndedIterator<Item = StepKey> {
        let first = (workflow, 0);
        let end = match before {
            Some(before) => Bound::Excluded((root, before.max(first))),
            None => Bound::Included((root, (WorkflowKey(u64::MAX), u32::MAX))),
        };
        self.by_root.range((Bound::Included((root, first)), end)).map(|(_, key)| *key)
    }

    fn of(&self, workflow: WorkflowKey) -> impl Iterator<Item = StepKey> {
        self.waiting.range((workflow, 0)..=(workflow, u32::MAX)).copied()
    }

    /// Forgets the steps of a workflow that is removed, whatever their last state.
    fn remove(&mut self, workflow: WorkflowKey) {
        let own: Vec<_> = self.of(workflow).collect();
        let root = self.roots.remove(&workflow);
        for key in own {
            self.waiting.remove(&key);
            self.by_root.remove(&(root, key));
        }
        if let Some(changed) = &mut self.changed {
            changed.removed.insert(workflow);
        }
    }
}

impl Approvals {
    /// Takes in the steps that a commit has changed or removed.
    pub(crate) fn observe(&self, commit: &Commit) {
        let mut approvals = commit.steps.iter().filter(|step| step.is_approval()).peekable();
        if approvals.peek().is_none() && commit.removed_workflows.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        for step in approvals {
            if let Some(changed) = &mut known.changed {
                changed.steps.insert((step.workflow, step.index));
            }
            known.apply(step);
        }
        commit.removed_workflows.iter().for_each(|workflow| known.remove(*workflow));
    }

    /// Returns the number of steps that wait for a person. Waits until the store was read.
    pub(crate) async fn count(&self) -> usize {
        self.is_read.wait().await;
        self.known.lock().waiting.len()
    }

    /// Returns steps of workflows that wait for a person before another one, in the order of lists: the newest first. Waits until the store
    /// was read.
    pub(crate) async fn list(&self, of: Of, before: Option<StepKey>, limit: usize) -> Vec<StepKey> {
        self.is_read.wait().await;
        let (first, last) = match of {
            Of::All => (WorkflowKey(0), WorkflowKey(u64::MAX)),
            Of::Workflow(workflow) => (workflow, workflow),
            Of::Below { workflow, root } => {
                let known = self.known.lock();
                let of = |root| known.below(root, workflow, before).rev().take(limit);
                let mut waiting: Vec<_> = of(Some(root)).chain(of(None)).collect();
                waiting.sort_unstable_by(|one, other| other.cmp(one));
                waiting.truncate(limit);
                return waiting;
            }
        };
        let last = (last, u32::MAX);
        let end = match before {
            Some(before) if before <= last => Bound::Excluded(before),
            _ => Bound::Included(last),
        };
        let known = self.known.lock();
        let waiting = known.waiting.range((Bound::Unbounded, end)).rev().copied();
        waiting.take_while(|(workflow, _)| first <= *workflow).take(limit).collect()
    }

    /// Returns the first steps that wait for a person, of a workflow and of those below it. None until the store was read.
    pub(crate) fn oldest(&self, workflow: WorkflowKey, root: WorkflowKey, limit: usize) -> Vec<StepKey> {
        if self.is_read.get().is_none() {
            return Vec::new();
        }
        let known = self.known.lock();
        let of = |root| known.below(root, workflow, None).take(limit);
        let mut waiting: Vec<_> = of(Some(root)).chain(of(None)).collect();
        waiting.sort_unstable();
        waiting.truncate(limit);
        waiting
    }

    /// Remembers the outermost workflow of one while steps of it wait for a person.
    pub(crate) fn note_root(&self, workflow: WorkflowKey, root: WorkflowKey) {
        let mut known = self.known.lock();
        let own: Vec<_> = known.of(workflow).collect();
        if own.is_empty() {
            return;
        }
        let before = known.roots.insert(workflow, root);
        if before != Some(root) {
            for key in own {
                known.by_root.remove(&(before, key));
                known.by_root.insert((Some(root), key));
            }
        }
    }

    /// Reads the steps of the store, once.
    pub(crate) async fn run(&self, store: &StoreClient, stop: CancellationToken) {
        let read = async {
            while let Err(error) = self.read(store.reads()).await {
                tracing::warn!(%error, "failed to read the approvals that wait, retrying");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        };
        stop.run_until_cancelled(read).await;
    }

    async fn read(&self, store: &dyn Store) -> Result<(), Error> {
        let mut after = None;
        loop {
            self.known.lock().changed = Some(Changed::default());
            let rows = store.workflows(WorkflowQuery::Active { after, limit: PAGE }).await;
            let mut known = self.known.lock();
            let changed = known.changed.take().unwrap_or_default();
            let rows = rows?;
            let Some(last) = rows.steps.last() else {
                // Only the first reader sets it.
                let _ = self.is_read.set(());
                return Ok(());
            };
            after = Some((last.workflow, last.index));
            let unchanged = |step: &&Step| {
                !changed.steps.contains(&(step.workflow, step.index))
                    && !changed.removed.contains(&step.workflow)
            };
            for step in rows.steps.iter().filter(|step| step.is_approval()).filter(unchanged) {
                known.apply(step);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use rota_core::workflow::{Kind, StepState};

    use super::*;

    #[test]
    fn steps_that_wait_for_a_person_are_counted() {
        let step = |index, state, kind| {
            let step = Step::new(format!("s{index}"), kind);
            Arc::new(Step { workflow: WorkflowKey(1), index, state, ..step })
        };
        let asks = Kind::Approval { deadline: None, approves: false };
        let approvals = Approvals::default();
        assert_eq!(approvals.count().now_or_never(), None, "the store was not read");
        approvals.is_read.set(()).unwrap();
        let count = || approvals.count().now_or_never().unwrap();
        let observe = |steps| approvals.observe(&Commit { steps, ..Commit::default() });
        let key = WorkflowKey(1);
        observe(vec![
            step(1, StepState::Running, asks),
            step(2, StepState::Ready, asks),
            step(3, StepState::Running, Kind::Task),
        ]);
        assert_eq!(count(), 1);
        observe(vec![step(1, StepState::Running, asks), step(2, StepState::Running, asks)]);
        assert_eq!(count(), 2);
        assert_eq!(approvals.oldest(key, key, 9), [(key, 1), (key, 2)]);
        approvals.note_root(key, key);
        assert_eq!(approvals.oldest(key, key, 1), [(key, 1)]);
        assert!(approvals.oldest(key, WorkflowKey(0), 9).is_empty(), "below another one");
        observe(vec![step(1, StepState::Succeeded, asks), step(2, StepState::Cancelled, asks)]);
        assert_eq!(count(), 0);
        // Of a workflow that is removed while a person is asked: a record of it cannot be decoded.
        observe(vec![step(1, StepState::Running, asks), step(2, StepState::Running, asks)]);
        let other = |workflow| {
            Arc::new(Step { workflow: WorkflowKey(workflow), ..(*step(0, StepState::Running, asks)).clone() })
        };
        observe(vec![other(0), other(2)]);
        approvals.observe(&Commit { removed_workflows: vec![WorkflowKey(1)], ..Commit::default() });
        let known = approvals.known.lock().by_root.len();
        assert_eq!(known, 2, "the index has what waits");
        let left = approvals.list(Of::All, None, 9).now_or_never().unwrap();
        assert_eq!(left, [(WorkflowKey(2), 0), (WorkflowKey(0), 0)]);
    }

    #[tokio::test]
    async fn steps_are_listed_once_all_are_known() {
        let approvals = Approvals::default();
        let keys = [(1, 4), (2, 0), (2, 7), (3, 1)].map(|(workflow, index)| (WorkflowKey(workflow), index));
        approvals.known.lock().waiting.extend(keys);
        approvals.known.lock().by_root.extend(keys.map(|key| (None, key)));
        let root = WorkflowKey(2);
        assert!(approvals.oldest(root, root, 9).is_empty());
        assert!(approvals.list(Of::All, None, 2).now_or_never().is_none());
        approvals.is_read.set(()).unwrap();
        assert_eq!(approvals.list(Of::All, None, 2).await, [keys[3], keys[2]]);
        assert_eq!(approvals.list(Of::All, Some(keys[2]), 9).await, [keys[1], keys[0]]);
        assert!(approvals.list(Of::All, Some(keys[0]), 9).await.is_empty());
        let of = Of::Workflow(WorkflowKey(2));
        assert_eq!(approvals.list(of, None, 1).await, [keys[2]]);
        assert_eq!(approvals.list(of, Some(keys[2]), 9).await, [keys[1]]);
        assert_eq!(approvals.list(of, Some(keys[3]), 9).await, [keys[2], keys[1]], "a token of another list");
        assert!(approvals.list(of, Some(keys[1]), 9).await.is_empty());
        assert!(approvals.list(Of::Workflow(WorkflowKey(4)), None, 9).await.is_empty());
        let below = Of::Below { workflow: WorkflowKey(2), root: WorkflowKey(2) };
        assert_eq!(approvals.list(below, None, 9).await, [keys[3], keys[2], keys[1]], "as far as is known");
        approvals.note_root(WorkflowKey(3), WorkflowKey(1));
        assert_eq!(approvals.list(below, None, 9).await, [keys[2], keys[1]]);
        assert_eq!(approvals.list(below, Some(keys[2]), 9).await, [keys[1]]);
        approvals.note_root(root, root);
        assert_eq!(approvals.list(below, None, 9).await, [keys[2], keys[1]]);
        assert_eq!(approvals.oldest(root, root, 9), [keys[1], keys[2]]);
        approvals.note_root(root, UNDECODABLE);
        assert!(approvals.oldest(root, root, 9).is_empty());
        // What has no step that waits is not remembered.
        approvals.note_root(WorkflowKey(4), WorkflowKey(1));
        approvals.observe(&Commit { removed_workflows: vec![root, WorkflowKey(3)], ..Commit::default() });
        assert!(approvals.known.lock().roots.is_empty());
    }
}
