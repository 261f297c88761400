//! The loop of the driver, which evaluates what the queue has: a few steps at a time, whose commands are committed together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::{Rejected, State, StepState, Workflow};
use rota_store::{Action, Command, Refused, Reply, StepKey, WorkflowCommand, WorkflowQuery, WorkflowRows};
use rota_telemetry::{OnExit, spawn};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::evaluate::{self, Next};
use super::queue::Work;
use super::ready::{RETRY_DELAY, ReadySteps, UnderWay};
use super::room::{Room, Uncommitted};
use super::values::{self, NoValues};
use super::watched;
use crate::grpc::{Creator, Kept};
use crate::scheduler::until_answered;
use crate::store_client::StoreClient;
use crate::wire::status;
use crate::wire::workflow::{StoredStep, check_outputs};

/// Steps that are evaluated at the same time.
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
            let work = under_way.work;
            let (driver, runtime) = (self.clone(), Handle::current());
            // Expressions take up to a second: other calls must not wait for them. Nor must one that panics end the process,
            // which would evaluate it again at its next start.
            let evaluated = tokio::task::spawn_blocking(move || {
                runtime.block_on(async {
                    match work {
                        Work::Step(key) => Box::pin(driver.step(key)).await,
                        Work::Outputs(key) => driver.outputs(key).await,
                    }
                })
            });
            let evaluated = match evaluated.await {
                Ok(evaluated) => evaluated,
                Err(error) if error.is_panic() => self.give_up(work).await,
                Err(_) => return,
            };
            under_way.evaluated(evaluated.as_ref().map_or(0, |one| one.as_ref().map_or(0, |one| one.spent)));
            match evaluated {
                Ok(Some(evaluated)) => self.commit(under_way, evaluated).await,
                Ok(None) => self.ready.continued(work),
                Err(delay) => {
                    let waits = matches!(delay, Delay::Store(_));
                    self.delay(work, delay);
                    if waits {
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                }
            }
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
    async fn commit(&self, under_way: UnderWay, evaluated: Evaluated) {
        let Some(room) = self.uncommitted.acquire(&evaluated.command).await else { return };
        let driver = self.clone();
        spawn(
            "step-commit",
            OnExit::Done,
            async move { driver.commit_now(under_way, evaluated, room).await },
        );
    }

    /// Commits a command. Unless its workflow is paused, one that the engine refuses was evaluated for an earlier state: the
    /// commit that changed it pushed the step again.
    async fn commit_now(&self, under_way: UnderWay, evaluated: Evaluated, _room: Room) {
        let Evaluated { command, kept, .. } = evaluated;
        let work = under_way.work;
        let commit = self.store.apply(vec![Command::from(command)]);
        let (kept, replies) = until_answered(kept, commit).await;
        self.fails.store(replies.is_err(), Ordering::Relaxed);
        if replies.is_ok() {
            self.ready.continued(work);
        }
        match replies {
            Ok(replies) => match replies.into_iter().next() {
                Some(Ok(Reply::Driven(offered))) => kept.into_iter().for_each(|one| one.commit(&offered)),
                Some(Err(Refused::Workflow(Rejected::Paused))) => {
                    if let Work::Step(key) = work
                        && let Err(delay) = self.hold(key).await
                    {
                        self.delay(work, delay);
                    }
                }
                Some(Err(refused)) => tracing::debug!(%refused, "a step has changed meanwhile"),
                _ => {}
            },
            Err(error) => self.delay(work, error.into()),
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

    /// Reads rows. A record that cannot be decoded is missing: a start finds it again once it can be.
    async fn read(&self, query: WorkflowQuery) -> Result<WorkflowRows, Delay> {
        match self.store.reads().workflows(query).await {
            Err(rota_store::Error::Corrupt(reason)) => {
                tracing::error!(reason, "a workflow does not continue: a record of it cannot be decoded");
                Ok(WorkflowRows::default())
            }
            rows => Ok(rows?),
        }
    }

    async fn step(&self, key: StepKey) -> Result<Option<Evaluated>, Delay> {
        let rows = self.read(WorkflowQuery::Work(key)).await?;
        let step = rows.steps.into_iter().find(|step| step.needs_driver());
        let (Some(workflow), Some(step)) = (rows.workflows.first(), step) else { return Ok(None) };
        // The engine would refuse it.
        if workflow.is_paused() && (step.state == StepState::Ready || step.wanted() > 0) {
            return self.hold(key).await.map(|()| None);
        }
        let mut bodies = rows.bodies.into_iter().map(|(_, body)| body);
        let Some(stored) = bodies.next().and_then(|body| StoredStep::decode(body).ok()) else {
            tracing::error!(workflow = %workflow.id, step = step.name, "the spec of a step cannot be decoded");
            let action = evaluate::fail(&step, "its spec cannot be decoded".to_owned());
            return Ok(Some(drive(key, action).into()));
        };
        let ends_it = step.finally || step.compensation.is_some();
        if self.ready.has_spent_all(key.0, ends_it) {
            return Ok(Some(drive(key, evaluate::fail(&step, SPENT.to_owned())).into()));
        }
        let spec = bodies.next().unwrap_or_default();
        let (next, spent) = evaluate::next(&self.store, &self.creator, workflow, &step, stored, spec).await;
        let next = match next {
            Ok(next) => next,
            Err(NoValues::Later(status)) => return Err(Delay::Step(status)),
            Err(NoValues::Store(status)) => return Err(Delay::Store(status)),
            Err(NoValues::Step(_)) => None,
        };
        let Some(Next { action, kept }) = next else { return Ok(None) };
        Ok(Some(Evaluated { command: drive(key, action), spent, kept }))
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
