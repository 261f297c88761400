//! `rota workflow resolve`: decides about a compensation that has failed.

use clap::Args;
use rota_proto::{names, v1};

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// Id or alias of a workflow that has ended in the state COMPENSATION_FAILED
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
    /// Step whose compensation has failed [default: the only one]
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    #[command(flatten)]
    decision: Decision,
    /// Reason, which `rota workflow get` shows to people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Decision {
    /// Run the compensation again, as another task
    #[arg(long)]
    retry: bool,
    /// The effects were reversed by hand
    #[arg(long)]
    done: bool,
    /// Leave the effects as they are
    #[arg(long)]
    skip: bool,
}

impl Decision {
    fn resolution(&self) -> v1::CompensationResolution {
        match (self.retry, self.done) {
            (true, _) => v1::CompensationResolution::Retry,
            (_, true) => v1::CompensationResolution::Done,
            _ => v1::CompensationResolution::Skip,
        }
    }
}

impl Resolve {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let name = names::workflow(&context.namespace, &self.workflow);
        let steps = context.client.all_workflow_steps(&name).await?;
        let has_failed = |step: &&v1::StepStatus| step.compensation() == v1::StepState::Failed;
        let is_meant = |step: &&v1::StepStatus| self.step.as_ref().is_none_or(|named| *named == step.name);
        let Some(step) = steps.iter().filter(has_failed).find(is_meant) else {
            let text = format!("no failed compensation of workflow {} waits for a person", self.workflow);
            let hint = format!("see its steps: rota workflow get {}", self.workflow);
            return Err(Failure::new(Exit::Failed, text).hint(hint).into());
        };
        let request = v1::ResolveCompensationRequest {
            name,
            step: step.name.clone(),
            resolution: self.decision.resolution().into(),
            note: self.note,
            // A repeated call resolves this failure, and not the next one.
            failure: step.compensation_failures,
        };
        let step = context.client.resolve_compensation(request).await?.step.unwrap_or_default();
        if context.out.is_human() {
            let text = format!(
                "compensation of step {} resolved; follow the rest: rota workflow watch {}",
                step.name, self.workflow
            );
            context.reporter.line(&text);
        } else {
            context.out.value(&step)?;
        }
        Ok(Exit::Ok)
    }
}
