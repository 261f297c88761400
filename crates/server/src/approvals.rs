//! Index of the steps of workflows that wait for a person: kept from commits, and read from the store after a start.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::workflow::{Kind, Step, StepState};
use rota_store::{Commit, Error, StepKey, Store, WorkflowQuery};
use tokio_util::sync::CancellationToken;

use crate::store_client::StoreClient;

/// Steps of one page that is read after a start.
const PAGE: usize = 500;
const RETRY_DELAY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Approvals(Mutex<Known>);

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
        let mut known = self.0.lock();
        for step in approvals {
            if let Some(changed) = &mut known.changed {
                changed.insert((step.workflow, step.index));
            }
            known.apply(step);
        }
    }

    /// Returns the number of steps that wait for a person.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().waiting.len()
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
            self.0.lock().changed = Some(BTreeSet::new());
            let rows = store.workflows(WorkflowQuery::Active { after, limit: PAGE }).await;
            let mut known = self.0.lock();
            let changed = known.changed.take().unwrap_or_default();
            let rows = rows?;
            let Some(last) = rows.steps.last() else { return Ok(()) };
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
}
