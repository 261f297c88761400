//! The loop of the driver, which evaluates what the queue has.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::{Rejected, State, StepState, Workflow};
use rota_store::{Action, Command, Refused, StepKey, WorkflowCommand, WorkflowQuery, WorkflowRows};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::evaluate::{self, Next};
use super::ready::{RETRY_DELAY, ReadySteps, Work};
use super::values::{self, NoValues};
use crate::grpc::Creator;
use crate::store_client::StoreClient;
use crate::wire::status;
use crate::wire::workflow::StoredStep;

/// Steps that are evaluated at the same time.
const CONCURRENCY: usize = 8;
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

/// Evaluates the steps of the queue.
#[derive(Clone)]
pub(crate) struct Driver {
    store: StoreClient,
    creator: Creator,
    ready: Arc<ReadySteps>,
}

impl Driver {
    pub(crate) fn new(store: StoreClient, creator: Creator, ready: Arc<ReadySteps>) -> Self {
        Self { store, creator, ready }
    }

    /// Evaluates steps until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.ready.keep_restoring(&self.store, RESYNC_INTERVAL) => {}
            _ = join_all((0..CONCURRENCY).map(|_| self.work())) => {}
        }
    }

    async fn work(&self) {
        loop {
            let work = self.ready.next().await;
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
            let done = match evaluated.await {
                Ok(done) => done,
                Err(error) if error.is_panic() => self.give_up(work).await,
                Err(_) => return,
            };
            match done {
                Ok(()) => {}
                Err(Delay::Store(status)) => {
                    tracing::debug!(
                        ?work,
                        error = status.message(),
                        "failed to continue a workflow, retrying"
                    );
                    tokio::time::sleep(RETRY_DELAY).await;
                    self.ready.push(work);
                }
                Err(Delay::Step(status)) => {
                    tracing::debug!(?work, error = status.message(), "a step cannot continue now, retrying");
                    self.ready.push_after(RETRY_DELAY, work);
                }
            }
        }
    }

    /// Fails what cannot be evaluated without a panic.
    async fn give_up(&self, work: Work) -> Result<(), Delay> {
        let message = "the evaluation of its expressions has failed: please report this".to_owned();
        tracing::error!(?work, "the evaluation of expressions panicked");
        let key = match work {
            Work::Outputs(workflow) => {
                let command = WorkflowCommand::Conclude { workflow, outputs: Err(message) };
                return self.apply(command).await.map(drop);
            }
            Work::Step(key) => key,
        };
        let query = WorkflowQuery::StepsAt(key.0, vec![key.1]);
        let rows = self.read(query).await?;
        let Some(step) = rows.steps.first() else { return Ok(()) };
        self.apply(drive(key, evaluate::fail(step, message))).await.map(drop)
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

    async fn workflow(&self, key: WorkflowKey) -> Result<Option<Workflow>, Delay> {
        Ok(self.read(WorkflowQuery::Key(key)).await?.workflows.into_iter().next())
    }

    async fn step(&self, key: StepKey) -> Result<(), Delay> {
        let Some(workflow) = self.workflow(key.0).await? else { return Ok(()) };
        let rows = self.read(WorkflowQuery::StepsAt(key.0, vec![key.1])).await?;
        let Some(step) = rows.steps.into_iter().find(|step| step.needs_driver()) else { return Ok(()) };
        // The engine would refuse it.
        if workflow.is_paused() && (step.state == StepState::Ready || step.wanted() > 0) {
            return self.hold(key).await;
        }
        let specs = self.read(WorkflowQuery::StepSpecs { workflow: key.0, from: key.1, limit: 1 }).await?;
        let body = specs.bodies.into_iter().find(|(index, _)| *index == step.index).map(|(_, body)| body);
        let Some(stored) = body.and_then(|body| StoredStep::decode(body).ok()) else {
            tracing::error!(workflow = %workflow.id, step = step.name, "the spec of a step cannot be decoded");
            let action = evaluate::fail(&step, "its spec cannot be decoded".to_owned());
            return self.apply(drive(key, action)).await.map(drop);
        };
        let next = match evaluate::next(&self.store, &self.creator, &workflow, &step, stored).await {
            Ok(next) => next,
            Err(NoValues::Later(status)) => return Err(Delay::Step(status)),
            Err(NoValues::Store(status)) => return Err(Delay::Store(status)),
            Err(NoValues::Step(_)) => None,
        };
        let Some(Next { action, pins }) = next else { return Ok(()) };
        let refused = self.apply(drive(key, action)).await?;
        drop(pins);
        match refused {
            Some(Refused::Workflow(Rejected::Paused)) => self.hold(key).await,
            _ => Ok(()),
        }
    }

    /// Keeps a step until its workflow is not paused any more.
    async fn hold(&self, key: StepKey) -> Result<(), Delay> {
        self.ready.hold(key);
        // The commit that ended the pause may have been observed before.
        if !self.workflow(key.0).await?.is_some_and(|workflow| workflow.is_paused()) {
            self.ready.release(key.0);
        }
        Ok(())
    }

    async fn outputs(&self, key: WorkflowKey) -> Result<(), Delay> {
        let Some(workflow) = self.workflow(key).await? else { return Ok(()) };
        if workflow.state != State::Ending {
            return Ok(());
        }
        let evaluated = async {
            let stored = values::spec(&self.store, key).await?;
            let values = values::read(&self.store, &workflow, &stored.seen).await?;
            evaluate::outputs(&stored.spec.unwrap_or_default().outputs, &values)
        };
        let outputs = match evaluated.await {
            Ok(outputs) => Ok(outputs.into()),
            Err(NoValues::Step(why)) => Err(format!("outputs: {why}")),
            Err(NoValues::Store(status) | NoValues::Later(status)) => return Err(Delay::Store(status)),
        };
        self.apply(WorkflowCommand::Conclude { workflow: key, outputs }).await.map(drop)
    }

    /// Commits a command. Unless its workflow is paused, one that the engine refuses was evaluated for an earlier state: the
    /// commit that changed it pushed the step again.
    async fn apply(&self, command: WorkflowCommand) -> Result<Option<Refused>, Delay> {
        let replies = self.store.apply(vec![Command::from(command)]).await?;
        let refused = replies.into_iter().next().and_then(Result::err);
        if let Some(refused) = &refused {
            tracing::debug!(%refused, "a step has changed meanwhile");
        }
        Ok(refused)
    }
}
