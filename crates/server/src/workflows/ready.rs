//! Steps that wait for the driver, and changes for watchers, as commits push them.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::WorkflowKey;
use rota_core::workflow::State;
use rota_store::{Commit, StepKey};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{Notify, broadcast};

/// Commits that a watcher may be behind before it reads everything again.
const CHANGES: usize = 256;

/// Workflow or steps that a commit has changed.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) workflow: WorkflowKey,
    pub(crate) steps: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Work {
    Step(StepKey),
    /// The outputs of a workflow.
    Outputs(WorkflowKey),
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<Work>,
    known: HashSet<Work>,
}

/// Queue of the driver. A step is in it once.
#[derive(Debug)]
pub(crate) struct ReadySteps {
    queue: Mutex<Queue>,
    wake: Notify,
    changes: broadcast::Sender<Arc<Vec<Change>>>,
}

impl Default for ReadySteps {
    fn default() -> Self {
        Self { queue: Mutex::default(), wake: Notify::new(), changes: broadcast::channel(CHANGES).0 }
    }
}

impl ReadySteps {
    /// Returns the changes of workflows from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Arc<Vec<Change>>> {
        self.changes.subscribe()
    }

    /// Takes in a commit. Never waits.
    pub(crate) fn observe(&self, commit: &Commit) {
        if commit.workflows.is_empty() && commit.steps.is_empty() {
            return;
        }
        for step in commit.steps.iter().filter(|step| step.needs_driver()) {
            self.push(Work::Step((step.workflow, step.index)));
        }
        for workflow in commit.workflows.iter().filter(|workflow| workflow.state == State::Ending) {
            self.push(Work::Outputs(workflow.key));
        }
        if self.changes.receiver_count() == 0 {
            return;
        }
        let mut changes: Vec<Change> = commit
            .workflows
            .iter()
            .map(|workflow| Change { workflow: workflow.key, steps: Vec::new() })
            .collect();
        for step in &commit.steps {
            match changes.iter_mut().find(|change| change.workflow == step.workflow) {
                Some(change) => change.steps.push(step.index),
                None => changes.push(Change { workflow: step.workflow, steps: vec![step.index] }),
            }
        }
        // Without a receiver there is nothing to do.
        let _ = self.changes.send(Arc::new(changes));
    }

    pub(super) fn push(&self, work: Work) {
        let mut queue = self.queue.lock();
        if queue.known.insert(work) {
            queue.order.push_back(work);
            self.wake.notify_one();
        }
    }

    /// Pushes what cannot continue now, later.
    pub(super) fn push_after(self: &Arc<Self>, delay: Duration, work: Work) {
        let queue = Arc::clone(self);
        spawn("step-retry", OnExit::Done, async move {
            tokio::time::sleep(delay).await;
            queue.push(work);
        });
    }

    fn pop(&self) -> Option<Work> {
        let mut queue = self.queue.lock();
        let work = queue.order.pop_front()?;
        queue.known.remove(&work);
        Some(work)
    }

    /// Waits for the next one.
    pub(super) async fn next(&self) -> Work {
        loop {
            if let Some(work) = self.pop() {
                // Another worker may sleep although there is more.
                self.wake.notify_one();
                return work;
            }
            self.wake.notified().await;
        }
    }
}
