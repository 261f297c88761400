//! Steps that are added to a workflow that runs.

use rota_core::workflow::{Rejected, State, Workflow};
use rota_proto::v1;
use rota_store::{Command, Refused, Reply, WorkflowCommand};
use tonic::Status;

use super::Workflows;
use crate::store_client::{no_reply, unexpected_reply};
use crate::wire::status::{self, invalid};
use crate::wire::workflow as wire;
use crate::workflows::{Held, held_around};

/// Times that a step is checked again, since others were added meanwhile.
const MAX_TRIES: usize = 10;

impl Workflows {
    pub(super) async fn add(&self, name: &str, given: v1::WorkflowStep) -> Result<v1::StepStatus, Status> {
        let mut last = Rejected::Outdated;
        for _ in 0..MAX_TRIES {
            let found = self.find("name", name).await?;
            let specs = self.step_specs(&found).await?;
            if let Some(existing) = specs.iter().find(|spec| spec.name == given.name)
                && *existing == given
            {
                let step = self.step_named(&found, &given.name).await?;
                return Ok(wire::step(&found, &step));
            }
            if found.state != State::Running {
                let rejected = match found.state {
                    state if state.is_final() => Rejected::Final(state),
                    state => Rejected::Phase(state),
                };
                return Err(status::refused(Refused::Workflow(rejected)));
            }
            self.check_group(&found, &given).await?;
            match self.try_add(&found, specs, given.clone()).await? {
                Ok(step) => return Ok(step),
                Err(Rejected::Outdated) => {}
                Err(rejected) => {
                    last = rejected;
                    break;
                }
            }
        }
        Err(status::refused(Refused::Workflow(last)))
    }

    /// Refuses a concurrency group below a step that holds one: each could wait for the other.
    async fn check_group(&self, workflow: &Workflow, given: &v1::WorkflowStep) -> Result<(), Status> {
        if given.concurrency.is_none() {
            return Ok(());
        }
        for held in held_around(&self.store, workflow).await.map_err(status::store)? {
            if let Held::Step { step, group } = held {
                let why = format!("step {step} around it holds concurrency group {group:?}");
                return Err(invalid("step.concurrency", why));
            }
        }
        Ok(())
    }

    async fn try_add(
        &self,
        workflow: &Workflow,
        specs: Vec<v1::WorkflowStep>,
        given: v1::WorkflowStep,
    ) -> Result<Result<v1::StepStatus, Rejected>, Status> {
        let spec = self.stored_spec(workflow.key).await?;
        let of = workflow.clone();
        // Large graphs take a while.
        let checked = tokio::task::spawn_blocking(move || wire::check_added(&of, &spec, specs, given)).await;
        let add = checked.map_err(|error| Status::internal(error.to_string()))??;
        let command = Command::from(WorkflowCommand::AddStep(Box::new(add)));
        let replies = self.store.apply(vec![command]).await.map_err(status::store)?;
        match replies.into_iter().next().ok_or_else(no_reply)? {
            Ok(Reply::Step(step)) => Ok(Ok(wire::step(workflow, &step))),
            Ok(_) => Err(unexpected_reply()),
            Err(Refused::Workflow(rejected)) => Ok(Err(rejected)),
            Err(refused) => Err(status::refused(refused)),
        }
    }
}
