//! Steps that wait for the driver, as commits push them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::WorkflowKey;
use rota_core::retry::backoff;
use rota_core::workflow::State;
use rota_store::{Commit, StepKey, WorkflowQuery};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::Notify;

use super::queue::{Queue, Work};
use super::watched::Watched;
use crate::store_client::StoreClient;

/// Rows of one read of the store.
const PAGE: usize = 500;
/// Time until something is tried again whose store or storage did not answer.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest time until such a retry.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Work that the expressions of one workflow may need, about 15 minutes; those of finally-steps and compensations may need as much again.
const MAX_WORK: u64 = 1000 * rota_expressions::MAX_COST;

#[derive(Debug, Default)]
struct Waiting {
    queue: Queue,
    /// Those that are pushed after a delay.
    delayed: HashSet<Work>,
    /// Failures of those that could not continue, since they last did.
    failures: HashMap<Work, Failures>,
    /// Steps of paused workflows, which continue when the pause has ended.
    paused: HashMap<WorkflowKey, HashSet<u32>>,
}

/// Failures of a step to continue, one after the other.
#[derive(Debug)]
struct Failures {
    count: u32,
    last: String,
}

/// Work of one workflow that has left the queue, until it is dropped.
pub(super) struct UnderWay {
    ready: Arc<ReadySteps>,
    pub(super) turn: Vec<Work>,
    is_evaluated: bool,
}

impl UnderWay {
    /// Lets others be evaluated, before the results of these are committed. What follows after the first ones was not evaluated.
    pub(super) fn evaluated(&mut self, count: usize, spent: u64) {
        if std::mem::replace(&mut self.is_evaluated, true) {
            return;
        }
        let Some(key) = self.turn.first().map(|work| work.workflow()) else { return };
        let left = self.turn.split_off(count.min(self.turn.len()));
        let mut waiting = self.ready.waiting.lock();
        waiting.queue.put_back(&left);
        if waiting.queue.evaluated(key, spent) {
            self.ready.wake.notify_one();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.evaluated(usize::MAX, 0);
        let mut waiting = self.ready.waiting.lock();
        for work in &self.turn {
            if waiting.queue.committed(*work) {
                self.ready.wake.notify_one();
            }
        }
    }
}

/// Queue of the driver. A step is in it once, and not while it is evaluated.
#[derive(Debug, Default)]
pub(crate) struct ReadySteps {
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// Watchers of single workflows, with what they share.
    pub(crate) watched: Arc<Watched>,
}

impl ReadySteps {
    /// Takes in a commit. Never waits.
    pub(crate) fn observe(&self, commit: &Commit) {
        if commit.workflows.is_empty() && commit.steps.is_empty() {
            return;
        }
        self.watched.observe(commit);
        for workflow in &commit.workflows {
            self.waiting.lock().queue.observe(workflow);
            if !workflow.is_paused() {
                self.release(workflow.key);
            }
        }
        for step in commit.steps.iter().filter(|step| step.needs_driver()) {
            self.push(Work::Step((step.workflow, step.index)));
        }
        for workflow in commit.workflows.iter().filter(|workflow| workflow.state == State::Ending) {
            self.push(Work::Outputs(workflow.key));
        }
    }

    pub(super) fn push(&self, work: Work) {
        if self.waiting.lock().queue.push(work) {
            self.wake.notify_one();
        }
    }

    /// Returns whether the expressions of a workflow have needed all the work that they may, before its end or at it.
    pub(super) fn has_spent_all(&self, workflow: WorkflowKey, ends_it: bool) -> bool {
        let most = if ends_it { 2 * MAX_WORK } else { MAX_WORK };
        self.waiting.lock().queue.spent(workflow) > most
    }

    /// Pushes what could not continue, for this reason, after a delay that grows with the number of its failures.
    pub(super) fn retry(self: &Arc<Self>, work: Work, reason: &str) {
        let count = {
            let mut waiting = self.waiting.lock();
            let failures = waiting.failures.entry(work).or_insert(Failures { count: 0, last: String::new() });
            failures.count = failures.count.saturating_add(1);
            reason.clone_into(&mut failures.last);
            failures.count
        };
        self.push_after(backoff(RETRY_DELAY, MAX_RETRY_DELAY, count, 1.0), work);
    }

    /// Forgets the failures of what has continued, or has ended.
    pub(super) fn continued(&self, work: Work) {
        self.waiting.lock().failures.remove(&work);
    }

    /// Returns why a step could not continue when it was last evaluated.
    pub(crate) fn failure(&self, step: StepKey) -> Option<String> {
        self.waiting.lock().failures.get(&Work::Step(step)).map(|failures| failures.last.clone())
    }

    pub(super) fn push_after(self: &Arc<Self>, delay: Duration, work: Work) {
        if !self.waiting.lock().delayed.insert(work) {
            return;
        }
        let ready = Arc::clone(self);
        spawn("step-retry", OnExit::Done, async move {
            tokio::time::sleep(delay).await;
            ready.waiting.lock().delayed.remove(&work);
            ready.push(work);
        });
    }

    /// Keeps a step until its workflow is not paused any more.
    pub(super) fn hold(&self, (workflow, step): StepKey) {
        self.waiting.lock().paused.entry(workflow).or_default().insert(step);
    }

    /// Pushes the steps of a workflow that were kept.
    pub(super) fn release(&self, workflow: WorkflowKey) {
        let mut waiting = self.waiting.lock();
        for step in waiting.paused.remove(&workflow).unwrap_or_default() {
            if waiting.queue.push(Work::Step((workflow, step))) {
                self.wake.notify_one();
            }
        }
    }

    /// Pushes what the store has and no commit has pushed: what an earlier process has left, and what a commit has changed
    /// whose outcome the store did not learn.
    async fn restore(&self, store: &StoreClient) -> Result<(), rota_store::Error> {
        let mut after = None;
        loop {
            let rows = store.reads().workflows(WorkflowQuery::Driven { after, limit: PAGE }).await?;
            let Some(last) = rows.steps.last() else { break };
            after = Some((last.workflow, last.index));
            for step in &rows.steps {
                self.learn(store, step.workflow).await?;
                let kept =
                    self.waiting.lock().paused.get(&step.workflow).map(|kept| kept.contains(&step.index));
                if kept != Some(true) {
                    self.push_unless_under_way(Work::Step((step.workflow, step.index)));
                }
            }
        }
        let mut after = WorkflowKey::default();
        loop {
            let rows = store.reads().workflows(WorkflowQuery::Ending { after, limit: PAGE }).await?;
            let Some(last) = rows.workflows.last() else { return Ok(()) };
            after = last.key;
            for workflow in &rows.workflows {
                self.waiting.lock().queue.observe(workflow);
                self.push_unless_under_way(Work::Outputs(workflow.key));
            }
        }
    }

    /// Reads the namespace of a workflow, unless it is known.
    async fn learn(&self, store: &StoreClient, key: WorkflowKey) -> Result<(), rota_store::Error> {
        if self.waiting.lock().queue.knows(key) {
            return Ok(());
        }
        let namespace = match store.reads().workflows(WorkflowQuery::Key(key)).await {
            Ok(rows) => rows.workflows.into_iter().next().map(|workflow| workflow.namespace),
            Err(rota_store::Error::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        self.waiting.lock().queue.learn(key, namespace);
        Ok(())
    }

    /// Pushes what a read has found, unless its evaluation is what changes it, or is tried again later.
    fn push_unless_under_way(&self, work: Work) {
        let mut waiting = self.waiting.lock();
        let waits = waiting.queue.is_under_way(work) || waiting.delayed.contains(&work);
        if !waits && waiting.queue.push(work) {
            self.wake.notify_one();
        }
    }

    /// Restores them at the start and from time to time. Never ends.
    pub(super) async fn keep_restoring(&self, store: &StoreClient, interval: Duration) {
        loop {
            let delay = match self.restore(store).await {
                Ok(()) => interval,
                Err(error) => {
                    tracing::warn!(%error, "failed to read the steps that are ready, retrying");
                    RETRY_DELAY
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    fn pop(self: &Arc<Self>) -> Option<UnderWay> {
        let turn = self.waiting.lock().queue.pop()?;
        Some(UnderWay { ready: Arc::clone(self), turn, is_evaluated: false })
    }

    /// Waits for the next one.
    pub(super) async fn next(self: &Arc<Self>) -> UnderWay {
        loop {
            if let Some(under_way) = self.pop() {
                // Another worker may sleep although there is more.
                self.wake.notify_one();
                return under_way;
            }
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use rota_core::workflow::{Command, Kind, Step, Workflow};
    use rota_core::{Namespace, Timestamp, WorkflowId};
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use rota_store::{CreateWorkflow, NewStep, Reply, WorkflowCommand};
    use uuid::Uuid;

    use super::super::values;
    use super::*;

    const WAIT_TIMEOUT: Duration = Duration::from_secs(90);

    async fn next(ready: &Arc<ReadySteps>) -> Work {
        tokio::time::timeout(WAIT_TIMEOUT, ready.next()).await.unwrap().turn[0]
    }

    fn pop(ready: &Arc<ReadySteps>) -> Option<Work> {
        ready.pop().map(|popped| popped.turn[0])
    }

    #[test]
    fn workflow_may_need_the_work_of_a_hundred_steps() {
        let (ready, workflow) = (Arc::new(ReadySteps::default()), WorkflowKey(1));
        // And of as many that end it.
        for (ends_it, steps) in [(false, 0..=100), (true, 101..=200)] {
            for index in steps {
                assert!(!ready.has_spent_all(workflow, ends_it), "{index}");
                ready.push(Work::Step((workflow, index)));
                ready.pop().unwrap().evaluated(1, values::MAX_WORK);
            }
            assert!(ready.has_spent_all(workflow, ends_it));
        }
        assert!(!ready.has_spent_all(WorkflowKey(2), false));
    }

    #[tokio::test]
    async fn step_without_a_commit_is_found() {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(|| Timestamp(1))).unwrap();
        let store = StoreClient::new(Arc::new(store), Arc::new(|| Timestamp(1)), Counter::default());
        let ready = Arc::new(ReadySteps::default());
        let step = Step::new("a".to_owned(), Kind::Signal { timeout: None });
        let workflow = Workflow::new(WorkflowId(Uuid::from_u128(1)), Namespace::new("n").unwrap());
        let create = CreateWorkflow::new(workflow, vec![NewStep::new(step)]);
        let work = async {
            let replies = store.apply(vec![WorkflowCommand::Create(Box::new(create)).into()]).await.unwrap();
            let Some(Ok(Reply::Workflow { workflow, .. })) = replies.into_iter().next() else { panic!() };
            let expected = Work::Step((workflow.key, 0));
            assert_eq!([next(&ready).await, next(&ready).await], [expected, expected]);
            workflow
        };
        let workflow = tokio::select! {
            () = ready.keep_restoring(&store, Duration::from_millis(1)) => unreachable!(),
            workflow = work => workflow,
        };
        // What waits for the end of a pause is left alone until then.
        ready.hold((workflow.key, 0));
        while pop(&ready).is_some() {}
        ready.restore(&store).await.unwrap();
        let mut record = (*workflow).clone();
        for (command, pushed) in [
            (Command::Pause { suspend: false }, None),
            (Command::RESUME, Some(Work::Step((workflow.key, 0)))),
        ] {
            record.apply(command, Timestamp(1)).unwrap();
            ready.observe(&Commit { workflows: vec![Arc::new(record.clone())], ..Commit::default() });
            assert_eq!(pop(&ready), pushed);
        }
        // What is evaluated now is not evaluated twice; a commit that changes it meanwhile lets it be evaluated again.
        let step = Work::Step((workflow.key, 0));
        ready.restore(&store).await.unwrap();
        let under_way = ready.pop().unwrap();
        ready.restore(&store).await.unwrap();
        assert_eq!((under_way.turn[0], pop(&ready)), (step, None));
        drop(under_way);
        assert_eq!(pop(&ready), None);
        ready.restore(&store).await.unwrap();
        let under_way = ready.pop().unwrap();
        ready.push(step);
        assert_eq!(pop(&ready), None);
        drop(under_way);
        assert_eq!(pop(&ready), Some(step));
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_failures_are_retried_less_often() {
        let ready = Arc::new(ReadySteps::default());
        let step = (WorkflowKey(1), 2);
        let work = Work::Step(step);
        let mut delays = Vec::new();
        for count in 1..=9 {
            ready.retry(work, &format!("reason {count}"));
            assert_eq!(ready.failure(step), Some(format!("reason {count}")));
            let begin = tokio::time::Instant::now();
            // Not found before by a look at the store.
            ready.push_unless_under_way(work);
            assert_eq!(next(&ready).await, work);
            delays.push(begin.elapsed().as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        ready.continued(work);
        assert_eq!(ready.failure(step), None);
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_work_is_pushed_once() {
        let ready = Arc::new(ReadySteps::default());
        let work = Work::Outputs(WorkflowKey(1));
        for seconds in 1..4 {
            ready.push_after(Duration::from_secs(seconds), work);
        }
        assert_eq!(next(&ready).await, work);
        assert!(tokio::time::timeout(WAIT_TIMEOUT, ready.next()).await.is_err());
    }
}
