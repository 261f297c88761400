//! Index of the steps of workflows that wait for a person: kept from commits, and read from the store after a start.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::workflow::{Kind, Step, StepState};
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
    /// Steps that commits have changed since a page was asked of the store, which may have older records of them.
    changed: Option<BTreeSet<StepKey>>,
}

impl Known {
    fn apply(&mut self, step: &Step) {
        let key = (step.workflow, step.index);
        match step.state == StepState::Running {
            true => drop(self.waiting.insert(key)),
            false => drop(self.waiting.remove(&key)),
        }
    }
}

fn is_approval(step: &Step) -> bool {
    matches!(step.kind, Kind::Approval { .. })
}

impl Approvals {
    /// Takes in the steps that a commit has changed.
    pub(crate) fn observe(&self, commit: &Commit) {
        let mut approvals = commit.steps.iter().filter(|step| is_approval(step)).peekable();
        if approvals.peek().is_none() {
            return;
        }
        let mut known = self.known.lock();
        for step in approvals {
            if let Some(changed) = &mut known.changed {
                changed.insert((step.workflow, step.index));
            }
            known.apply(step);
        }
    }

    /// Returns the number of steps that wait for a person.
    pub(crate) fn count(&self) -> usize {
        self.known.lock().waiting.len()
    }

    /// Returns steps that wait for a person before another one, in the order of lists: the newest first. Waits until the store was read.
    pub(crate) async fn list(&self, before: Option<StepKey>, limit: usize) -> Vec<StepKey> {
        self.is_read.wait().await;
        let known = self.known.lock();
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        known.waiting.range((Bound::Unbounded, end)).rev().take(limit).copied().collect()
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
            self.known.lock().changed = Some(BTreeSet::new());
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
            let unchanged = |step: &&Step| !changed.contains(&(step.workflow, step.index));
            for step in rows.steps.iter().filter(|step| is_approval(step)).filter(unchanged) {
                known.apply(step);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rota_core::WorkflowKey;

    use super::*;

    #[test]
    fn steps_that_wait_for_a_person_are_counted() {
        let step = |index, state, kind| {
            let step = Step::new(format!("s{index}"), kind);
            Arc::new(Step { workflow: WorkflowKey(1), index, state, ..step })
        };
        let asks = Kind::Approval { deadline: None, approves: false };
        let approvals = Approvals::default();
        let observe = |steps| approvals.observe(&Commit { steps, ..Commit::default() });
        observe(vec![
            step(1, StepState::Running, asks),
            step(2, StepState::Ready, asks),
            step(3, StepState::Running, Kind::Task),
        ]);
        assert_eq!(approvals.count(), 1);
        observe(vec![step(1, StepState::Running, asks), step(2, StepState::Running, asks)]);
        assert_eq!(approvals.count(), 2);
        observe(vec![step(1, StepState::Succeeded, asks), step(2, StepState::Cancelled, asks)]);
        assert_eq!(approvals.count(), 0);
    }

    #[tokio::test]
    async fn steps_are_listed_once_all_are_known() {
        let approvals = Approvals::default();
        let keys = [(1, 4), (2, 0), (2, 7), (3, 1)].map(|(workflow, index)| (WorkflowKey(workflow), index));
        approvals.known.lock().waiting.extend(keys);
        assert!(futures::FutureExt::now_or_never(approvals.list(None, 2)).is_none());
        approvals.is_read.set(()).unwrap();
        assert_eq!(approvals.list(None, 2).await, [keys[3], keys[2]]);
        assert_eq!(approvals.list(Some(keys[2]), 9).await, [keys[1], keys[0]]);
        assert!(approvals.list(Some(keys[0]), 9).await.is_empty());
    }
}
