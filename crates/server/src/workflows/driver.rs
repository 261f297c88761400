//! The loop of the driver, which evaluates what the queue has: some steps of a workflow in a turn, whose commands are committed together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::{Rejected, State, Step, StepState, Workflow};
use rota_store::{
    Action, Command, Refused, Reply, StepKey, WORKFLOW_MEMBER, WorkflowCommand, WorkflowQuery, WorkflowRows,
};
use rota_telemetry::{OnExit, spawn};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::around::Around;
use super::evaluate;
use super::next::Next;
use super::queue::Work;
use super::ready::{RETRY_DELAY, ReadySteps, UnderWay};
use super::room::{self, Room, Turn, Uncommitted};
use super::values::{self, NoValues};
use super::watched;
use crate::creation::{Creator, Kept};
use crate::scheduler::until_answered;
use crate::store_client::StoreClient;
use crate::wire::status;
use crate::wire::workflow::{StoredStep, check_outputs};

/// Turns at the same time.
pub(super) const CONCURRENCY: usize = 8;
const SPENT: &str = "the expressions of the workflow have needed all the work that one may cause: use simpler ones, or \
                     several workflows";
/// Time between looks for steps that no commit has pushed.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// Why a step could not be continued.
enum Delay {
    /// The store does not answer: no other step would do better.
    Store(Status),
    /// Something that this step needs is not there now: others need not wait for it.
    Step(Status),
}

impl From<rota_store::Error> for Delay {
    fn from(error: rota_store::Error) -> Self {
        Self::Store(status::store(error))
    }
}

fn drive((workflow, step): StepKey, action: Action) -> WorkflowCommand {
    WorkflowCommand::Drive { workflow, step, action: Box::new(action) }
}

/// Takes the rows of a read. A record that cannot be decoded is missing: a start finds it again once it can be.
fn read(rows: Result<WorkflowRows, rota_store::Error>) -> Result<WorkflowRows, Delay> {
    match rows {
        Err(rota_store::Error::Corrupt(reason)) => {
            tracing::error!(reason, "a workflow does not continue: a record of it cannot be decoded");
            Ok(WorkflowRows::default())
        }
        rows => Ok(rows?),
    }
}

/// Result of an evaluation, the work that it needed, and what is kept until its commit.
struct Evaluated {
    command: WorkflowCommand,
    spent: u64,
    kept: Vec<Kept>,
}

impl From<WorkflowCommand> for Evaluated {
    fn from(command: WorkflowCommand) -> Self {
        Self { command, spent: 0, kept: Vec::new() }
    }
}

/// What became of work that was evaluated.
type Outcome = (Work, Result<Option<Evaluated>, Delay>);

/// Evaluates the steps of the queue.
#[derive(Clone)]
pub(crate) struct Driver {
    store: StoreClient,
    creator: Creator,
    ready: Arc<ReadySteps>,
    uncommitted: Uncommitted,
    /// Whether the last commit has failed: as long as that is so, evaluations are slow, too.
    fails: Arc<AtomicBool>,
}

impl Driver {
    pub(crate) fn new(store: StoreClient, creator: Creator, ready: Arc<ReadySteps>) -> Self {
        Self { store, creator, ready, uncommitted: Uncommitted::default(), fails: Arc::default() }
    }

    /// Evaluates steps until `stop` is cancelled, and relays their changes to watchers.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = watched::relay(self.store.clone(), Arc::clone(&self.ready.watched), stop.clone()) => {}
            () = self.ready.keep_restoring(&self.store, RESYNC_INTERVAL) => {}
            _ = join_all((0..CONCURRENCY).map(|_| self.work())) => {}
        }
    }

    async fn work(&self) {
        loop {
            if self.fails.load(Ordering::Relaxed) {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            let mut under_way = self.ready.next().await;
            let Some(outcomes) = self.evaluate(under_way.turn.clone()).await else { return };
            let (mut commands, mut spent, mut waits) = (Vec::new(), 0_u64, false);
            let count = outcomes.len();
            for (work, outcome) in outcomes {
                match outcome {
                    Ok(Some(evaluated)) => {
                        spent = spent.saturating_add(evaluated.spent);
                        commands.push((work, evaluated));
                    }
                    Ok(None) => self.ready.continued(work),
                    Err(delay) => {
                        waits |= matches!(delay, Delay::Store(_));
                        self.delay(work, delay);
                    }
                }
            }
            under_way.evaluated(count, spent);
            if !commands.is_empty() {
                self.commit(under_way, commands).await;
            }
            if waits {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Evaluates a turn, or the first part of it. Returns nothing at the end of the process.
    async fn evaluate(&self, turn: Vec<Work>) -> Option<Vec<Outcome>> {
        let (driver, runtime, works) = (self.clone(), Handle::current(), turn.clone());
        // Expressions take up to a second: other calls must not wait for them. Nor must one that panics end the process, which
        // would evaluate it again at its next start. All of a turn share a stack.
        let evaluate = move || rota_expressions::on_stack(|| runtime.block_on(Box::pin(driver.turn(&works))));
        match tokio::task::spawn_blocking(evaluate).await {
            Ok(outcomes) => Some(outcomes),
            Err(error) if !error.is_panic() => None,
            Err(_) => match turn[..] {
                [work] => Some(vec![(work, self.give_up(work).await)]),
                // One of them.
                _ => {
                    let mut outcomes = Vec::new();
                    for work in turn {
                        outcomes.extend(Box::pin(self.evaluate(vec![work])).await?);
                    }
                    Some(outcomes)
                }
            },
        }
    }

    /// Lets a step be evaluated again later. As long as the store does not answer, nothing else would do better.
    fn delay(&self, work: Work, delay: Delay) {
        match delay {
            Delay::Store(status) => {
                tracing::debug!(?work, error = status.message(), "failed to continue a workflow, retrying");
                self.ready.push_after(RETRY_DELAY, work);
            }
            Delay::Step(status) => {
                tracing::warn!(?work, error = status.message(), "failed to continue a workflow, retrying");
                self.ready.retry(work, status.message());
            }
        }
    }

    /// Begins a commit, once there is room for it. It outlives the driver: the slots that it may fill are not released before.
    async fn commit(&self, under_way: UnderWay, evaluated: Vec<(Work, Evaluated)>) {
        let bytes = evaluated.iter().map(|(_, one)| room::bytes(&one.command)).sum();
        let Some(room) = self.uncommitted.acquire(bytes).await else { return };
        let driver = self.clone();
        spawn(
            "step-commit",
            OnExit::Done,
            async move { driver.commit_now(under_way, evaluated, room).await },
        );
    }

    /// Commits commands. Unless its workflow is paused, one that the engine refuses was evaluated for an earlier state: the
    /// commit that changed it pushed the step again.
    async fn commit_now(&self, _under_way: UnderWay, evaluated: Vec<(Work, Evaluated)>, _room: Room) {
        let (mut commands, mut kept) = (Vec::new(), Vec::new());
        for (work, one) in evaluated {
            commands.push(Command::from(one.command));
            kept.push((work, one.kept));
        }
        let (kept, replies) = until_answered(kept, self.store.apply(commands)).await;
        self.fails.store(replies.is_err(), Ordering::Relaxed);
        match replies {
            Ok(replies) => {
                for ((work, kept), reply) in kept.into_iter().zip(replies) {
                    self.ready.continued(work);
                    self.answered(work, kept, reply).await;
                }
            }
            Err(error) => kept.iter().for_each(|(work, _)| self.delay(*work, error.clone().into())),
        }
    }

    async fn answered(&self, work: Work, kept: Vec<Kept>, reply: Result<Reply, Refused>) {
        match reply {
            Ok(Reply::Driven(offered)) => kept.into_iter().for_each(|one| one.commit(&offered)),
            Err(Refused::Workflow(Rejected::Paused)) => {
                if let Work::Step(key) = work
                    && let Err(delay) = self.hold(key).await
                {
                    self.delay(work, delay);
                }
            }
            Err(refused) => tracing::debug!(%refused, "a step has changed meanwhile"),
            Ok(_) => {}
        }
    }

    /// Fails what cannot be evaluated without a panic.
    async fn give_up(&self, work: Work) -> Result<Option<Evaluated>, Delay> {
        let message = "the evaluation of its expressions has failed: please report this".to_owned();
        tracing::error!(?work, "the evaluation of expressions panicked");
        let key = match work {
            Work::Outputs(workflow) => {
                return Ok(Some(WorkflowCommand::Conclude { workflow, outputs: Err(message) }.into()));
            }
            Work::Step(key) => key,
        };
        let query = WorkflowQuery::StepsAt(key.0, vec![key.1]);
        let rows = self.read(query).await?;
        let Some(step) = rows.steps.first() else { return Ok(None) };
        Ok(Some(drive(key, evaluate::fail(step, message)).into()))
    }

    async fn read(&self, query: WorkflowQuery) -> Result<WorkflowRows, Delay> {
        read(self.store.reads().workflows(query).await)
    }

    /// Evaluates one after the other, as many as a turn has room for: one at least.
    async fn turn(&self, turn: &[Work]) -> Vec<Outcome> {
        let steps: Vec<_> = turn.iter().filter_map(|work| work.step()).collect();
        let Some((workflow, _)) = steps.first().copied() else {
            let mut outcomes = Vec::new();
            for work in turn {
                outcomes.push((*work, self.outputs(work.workflow()).await));
            }
            return outcomes;
        };
        let indexes = steps.iter().map(|(_, index)| *index).collect();
        let mut rows = match self.store.reads().workflows(WorkflowQuery::Work(workflow, indexes)).await {
            // One of them: the others continue.
            Err(rota_store::Error::Corrupt(_)) if turn.len() > 1 => {
                let mut outcomes = Vec::new();
                for work in turn {
                    outcomes.extend(Box::pin(self.turn(&[*work])).await);
                }
                return outcomes;
            }
            rows => match read(rows) {
                Ok(rows) => rows,
                Err(delay) => return vec![(turn[0], Err(delay))],
            },
        };
        let Some(workflow) = rows.workflows.pop() else {
            return turn.iter().map(|work| (*work, Ok(None))).collect();
        };
        let mut bodies: BTreeMap<_, _> = rows.bodies.into_iter().collect();
        let mut steps: BTreeMap<_, _> = rows.steps.into_iter().map(|step| (step.index, step)).collect();
        let spec = bodies.remove(&WORKFLOW_MEMBER).unwrap_or_default();
        let creator = self.creator.of_turn();
        let around = Around::new(&self.store, &creator, &workflow, spec, turn.len() > 1);
        let (mut done, mut outcomes) = (Turn::default(), Vec::with_capacity(turn.len()));
        for work in turn {
            let Some(key) = work.step() else { break };
            let (step, body) = (steps.remove(&key.1), bodies.remove(&key.1));
            let (outcome, spent) = match step.filter(Step::needs_driver) {
                Some(step) => Box::pin(self.step(&around, key, &step, body)).await,
                None => (Ok(None), 0),
            };
            let command = outcome.as_ref().ok().and_then(Option::as_ref).map(|evaluated| &evaluated.command);
            done.add(command, spent);
            let waits = matches!(outcome, Err(Delay::Store(_)));
            outcomes.push((*work, outcome));
            // One that cannot be committed must not keep others back.
            let fails = self.fails.load(Ordering::Relaxed);
            if waits || fails || done.is_full() || creator.step_files.has_waited() {
                break;
            }
        }
        outcomes
    }

    /// Evaluates a step. Returns the work that its expressions have needed, too.
    async fn step(
        &self,
        around: &Around<'_>,
        key: StepKey,
        step: &Step,
        body: Option<Bytes>,
    ) -> (Result<Option<Evaluated>, Delay>, u64) {
        let workflow = around.workflow;
        // The engine would refuse it.
        if workflow.is_paused() && (step.state == StepState::Ready || step.wanted() > 0) {
            return (self.hold(key).await.map(|()| None), 0);
        }
        let Some(stored) = body.and_then(|body| StoredStep::decode(body).ok()) else {
            tracing::error!(workflow = %workflow.id, step = step.name, "the spec of a step cannot be decoded");
            let action = evaluate::fail(step, "its spec cannot be decoded".to_owned());
            return (Ok(Some(drive(key, action).into())), 0);
        };
        let ends_it = step.finally || step.compensation.is_some();
        if self.ready.has_spent_all(key.0, ends_it) {
            return (Ok(Some(drive(key, evaluate::fail(step, SPENT.to_owned())).into())), 0);
        }
        let (next, spent) = evaluate::next(around, step, stored).await;
        let evaluated = |Next { action, kept }| Evaluated { command: drive(key, action), spent, kept };
        let outcome = match next {
            Ok(next) => Ok(next.map(evaluated)),
            Err(NoValues::Later(status)) => Err(Delay::Step(status)),
            Err(NoValues::Store(status)) => Err(Delay::Store(status)),
            Err(NoValues::Step(_)) => Ok(None),
        };
        (outcome, spent)
    }

    /// Keeps a step until its workflow is not paused any more.
    async fn hold(&self, key: StepKey) -> Result<(), Delay> {
        self.ready.hold(key);
        // The commit that ended the pause may have been observed before.
        let rows = self.read(WorkflowQuery::Key(key.0)).await?;
        if !rows.workflows.first().is_some_and(Workflow::is_paused) {
            self.ready.release(key.0);
        }
        Ok(())
    }

    async fn outputs(&self, key: WorkflowKey) -> Result<Option<Evaluated>, Delay> {
        let found = self.read(WorkflowQuery::Key(key)).await?.workflows.into_iter().next();
        let Some(workflow) = found.filter(|found| found.state == State::Ending) else { return Ok(None) };
        let spec = self.read(WorkflowQuery::Spec(key)).await?.bodies.into_iter().next();
        let spec = spec.map(|(_, body)| body).unwrap_or_default();
        let evaluated = async {
            let stored = values::decode(spec)?;
            let values = values::read(&self.store, &workflow, &stored, &stored.seen).await?;
            let spec = stored.spec.unwrap_or_default();
            let outputs = evaluate::outputs(&spec.outputs, &values)?;
            check_outputs(&spec, &outputs).map_err(NoValues::Step)?;
            Ok(outputs)
        };
        let outputs = match evaluated.await {
            Ok(outputs) => Ok(outputs.into()),
            Err(NoValues::Step(why)) => Err(format!("outputs: {why}")),
            Err(NoValues::Store(status)) => return Err(Delay::Store(status)),
            Err(NoValues::Later(status)) => return Err(Delay::Step(status)),
        };
        Ok(Some(WorkflowCommand::Conclude { workflow: key, outputs }.into()))
    }
}
