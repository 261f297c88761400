//! Index of the steps of workflows that wait for a person: kept from commits, and read from the store after a start.

use std::collections::BTreeSet;
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

#[derive(Debug, Default)]
pub(crate) struct Approvals {
    known: Mutex<Known>,
    /// Set once the store was read to its end.
    is_read: SetOnce<()>,
}

#[derive(Debug, Default)]
struct Known {
    waiting: BTreeSet<StepKey>,
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
        match step.awaits_decision() {
            true => drop(self.waiting.insert(key)),
            false => drop(self.waiting.remove(&key)),
        }
    }

    /// Forgets the steps of a workflow that is removed, whatever their last state.
    fn remove(&mut self, workflow: WorkflowKey) {
        let own: Vec<_> = self.waiting.range((workflow, 0)..=(workflow, u32::MAX)).copied().collect();
        for key in own {
            self.waiting.remove(&key);
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

    /// Returns steps that wait for a person before another one, in the order of lists: the newest first; only those of a workflow if one is
    /// named. Waits until the store was read.
    pub(crate) async fn list(
        &self,
        of: Option<WorkflowKey>,
        before: Option<StepKey>,
        limit: usize,
    ) -> Vec<StepKey> {
        self.is_read.wait().await;
        let last = of.map_or(Bound::Unbounded, |workflow| Bound::Included((workflow, u32::MAX)));
        let end = match (before, of) {
            (Some(before), Some(workflow)) if before.0 > workflow => last,
            (Some(before), _) => Bound::Excluded(before),
            (None, _) => last,
        };
        let known = self.known.lock();
        let waiting = known.waiting.range((Bound::Unbounded, end)).rev();
        waiting.take_while(|(workflow, _)| of.is_none_or(|of| of <= *workflow)).take(limit).copied().collect()
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
        observe(vec![
            step(1, StepState::Running, asks),
            step(2, StepState::Ready, asks),
            step(3, StepState::Running, Kind::Task),
        ]);
        assert_eq!(count(), 1);
        observe(vec![step(1, StepState::Running, asks), step(2, StepState::Running, asks)]);
        assert_eq!(count(), 2);
        observe(vec![step(1, StepState::Succeeded, asks), step(2, StepState::Cancelled, asks)]);
        assert_eq!(count(), 0);
        // Of a workflow that is removed while a person is asked: a record of it cannot be decoded.
        observe(vec![step(1, StepState::Running, asks), step(2, StepState::Running, asks)]);
        let other = |workflow| {
            Arc::new(Step { workflow: WorkflowKey(workflow), ..(*step(0, StepState::Running, asks)).clone() })
        };
        observe(vec![other(0), other(2)]);
        approvals.observe(&Commit { removed_workflows: vec![WorkflowKey(1)], ..Commit::default() });
        let left = approvals.list(None, None, 9).now_or_never().unwrap();
        assert_eq!(left, [(WorkflowKey(2), 0), (WorkflowKey(0), 0)]);
    }

    #[tokio::test]
    async fn steps_are_listed_once_all_are_known() {
        let approvals = Approvals::default();
        let keys = [(1, 4), (2, 0), (2, 7), (3, 1)].map(|(workflow, index)| (WorkflowKey(workflow), index));
        approvals.known.lock().waiting.extend(keys);
        assert!(approvals.list(None, None, 2).now_or_never().is_none());
        approvals.is_read.set(()).unwrap();
        assert_eq!(approvals.list(None, None, 2).await, [keys[3], keys[2]]);
        assert_eq!(approvals.list(None, Some(keys[2]), 9).await, [keys[1], keys[0]]);
        assert!(approvals.list(None, Some(keys[0]), 9).await.is_empty());
        let of = Some(WorkflowKey(2));
        assert_eq!(approvals.list(of, None, 1).await, [keys[2]]);
        assert_eq!(approvals.list(of, Some(keys[2]), 9).await, [keys[1]]);
        assert_eq!(approvals.list(of, Some(keys[3]), 9).await, [keys[2], keys[1]], "a token of another list");
        assert!(approvals.list(of, Some(keys[1]), 9).await.is_empty());
        assert!(approvals.list(Some(WorkflowKey(4)), None, 9).await.is_empty());
    }
}
