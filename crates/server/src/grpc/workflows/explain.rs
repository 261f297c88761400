//! Why a workflow does not continue.

use std::collections::BTreeSet;

use prost::Message;
use rota_core::WorkflowId;
use rota_core::usage::usd;
use rota_core::workflow::{Kind, NestedCommand, State, Step, StepState, Workflow};
use rota_proto::causes::{GROUP_FULL, STEP_APPROVAL, WORKFLOW_DAMAGED};
use rota_proto::v1;
use rota_store::{GroupKey, StepKey, WORKFLOW_MEMBER, WorkflowQuery};
use tonic::Status;

use super::{MAX_CAUSES, Workflows};
use crate::grpc::explain::orphaned;
use crate::wire::check;
use crate::wire::workflow::{self as wire, StoredStep};

/// Groups of steps whose holders an explanation names, and their number for each.
const MAX_GROUPS: usize = 5;
const MAX_HOLDERS: usize = 3;
/// Steps that wait for a person with which an explanation begins. The other causes are in the order of the steps.
const MAX_ASKING: usize = MAX_CAUSES / 2;

impl Workflows {
    pub(super) async fn explain(
        &self,
        workflow: &Workflow,
        step: &str,
    ) -> Result<v1::ExplainWorkflowResponse, Status> {
        let asking = match step {
            "" => self.asking(workflow, MAX_ASKING).await?,
            _ => Vec::new(),
        };
        let named: BTreeSet<StepKey> = asking.iter().map(|(_, step)| (step.workflow, step.index)).collect();
        let causes = asking.iter().filter_map(|(around, step)| asking_cause(around, step)).collect();
        self.explain_others(workflow, step, &named, causes).await
    }

    /// Explains a workflow, or a step of it, besides those steps of it and of those below it that have been named, with their causes.
    async fn explain_others(
        &self,
        workflow: &Workflow,
        step: &str,
        named: &BTreeSet<StepKey>,
        mut causes: Vec<v1::Cause>,
    ) -> Result<v1::ExplainWorkflowResponse, Status> {
        let mut waiting = Vec::new();
        if let Some(parent) = workflow.parent.as_ref().filter(|_| !workflow.state.is_final()) {
            causes.extend(orphaned(&self.store, &parent.step).await?.map(|cause| v1::Cause {
                code: cause.code.to_owned(),
                message: cause.message,
                hint: cause.hint,
            }));
        }
        if workflow.waits_for_group() {
            causes.push(self.group_cause(workflow, None).await?);
        }
        let mut visit = |record: Step| {
            match record.waits_for_group() && waiting.len() < MAX_GROUPS {
                true => waiting.push(record),
                false if named.contains(&(record.workflow, record.index)) => {}
                false => {
                    causes.extend(cause(workflow, &record).map(|cause| self.with_failure(cause, &record)))
                }
            }
            causes.len() + waiting.len() < MAX_CAUSES
        };
        if step.is_empty() {
            let (mut lost, mut next, mut continues) = (Vec::new(), 0, true);
            self.each_step(workflow.key, |record| {
                lost.extend(next..record.index);
                next = record.index + 1;
                continues = visit(record);
                continues
            })
            .await?;
            if continues {
                lost.extend(next..workflow.total());
            }
            lost.truncate(MAX_CAUSES.saturating_sub(causes.len() + waiting.len()));
            causes.extend(self.damaged_steps(workflow, &lost).await?);
        } else if let Some(named) = self.undamaged_step(workflow, step).await? {
            visit(named.clone());
            causes.extend(self.explain_needs(workflow, &named).await?);
        } else {
            causes.push(damaged_step(workflow, step));
        }
        for step in waiting {
            causes.push(self.group_cause(workflow, Some(&step)).await?);
        }
        self.explain_nested(workflow, step, named, &mut causes).await?;
        let state = wire::workflow(workflow, None, None).status.unwrap_or_default().state();
        let name = state.as_str_name().trim_start_matches("WORKFLOW_STATE_");
        let mut summary = match workflow.message.trim_end_matches('.') {
            "" => format!("The workflow is {name}."),
            why => format!("The workflow is {name}: {why}."),
        };
        match workflow.budget_micro_usd {
            Some(_) if workflow.is_over_budget() && workflow.state != State::Succeeded => {
                let message = "the budget of the workflow is spent: no further step starts".to_owned();
                let hint = "give a rerun a larger one: rota workflow rerun --failed --budget-usd".to_owned();
                causes.insert(0, v1::Cause { code: "workflow_budget".to_owned(), message, hint });
                causes.truncate(MAX_CAUSES);
            }
            Some(budget) => {
                let (spent, budget) = (usd(workflow.cost_micro_usd), usd(budget));
                summary.push_str(&format!(" Its tasks have cost {spent} of its budget of {budget}."));
            }
            None => {}
        }
        Ok(v1::ExplainWorkflowResponse { summary, causes })
    }

    /// Adds the reasons of the workflows that are steps, with the path to each.
    async fn explain_nested(
        &self,
        workflow: &Workflow,
        step: &str,
        named: &BTreeSet<StepKey>,
        causes: &mut Vec<v1::Cause>,
    ) -> Result<(), Status> {
        for index in &workflow.nests {
            let query = WorkflowQuery::StepsAt(workflow.key, vec![*index]);
            // One that is damaged has been named.
            let Some(rows) = self.undamaged(query).await? else { continue };
            let is_meant = |found: &Step| (step.is_empty() || found.name == step) && !found.reused;
            let Some(found) = rows.steps.into_iter().next().filter(is_meant) else { continue };
            if matches!(found.state, StepState::Succeeded | StepState::Skipped) {
                continue;
            }
            for (round, item) in found.nested(NestedCommand::Cancel) {
                if causes.len() >= MAX_CAUSES {
                    return Ok(());
                }
                let id = workflow.nested_id(*index, round, item);
                let query = WorkflowQuery::Id((workflow.namespace.clone(), id));
                let Some(rows) = self.undamaged(query).await? else {
                    causes.push(damaged(id, &format!("the record of workflow {id} of step {}", found.name)));
                    continue;
                };
                let is_meant = |nested: &Workflow| {
                    nested.state != State::Succeeded && nested.is_step(workflow.key, *index)
                };
                let Some(nested) = rows.workflows.into_iter().next().filter(is_meant) else { continue };
                let explained = Box::pin(self.explain_others(&nested, "", named, Vec::new())).await?;
                let left = MAX_CAUSES.saturating_sub(causes.len());
                causes.extend(
                    explained.causes.into_iter().take(left).map(|cause| within(&nested, &found.name, cause)),
                );
            }
        }
        Ok(())
    }

    /// Returns the causes of steps whose records cannot be decoded, with their names by the specification. What has ended needs none.
    async fn damaged_steps(&self, workflow: &Workflow, indexes: &[u32]) -> Result<Vec<v1::Cause>, Status> {
        let mut causes = Vec::new();
        for index in indexes.iter().filter(|_| !workflow.state.is_final()) {
            let query = WorkflowQuery::StepSpecs { workflow: workflow.key, from: *index, limit: 1 };
            let body = self.query(query).await?.bodies.into_iter().next().map(|(_, body)| body);
            let stored = StoredStep::decode(body.unwrap_or_default()).unwrap_or_default();
            causes.push(damaged_step(workflow, &stored.step.unwrap_or_default().name));
        }
        Ok(causes)
    }

    /// Names why a step could not continue when it was last evaluated.
    fn with_failure(&self, cause: v1::Cause, step: &Step) -> v1::Cause {
        match self.ready_steps.failure((step.workflow, step.index)).filter(|_| step.needs_driver()) {
            None => cause,
            Some(why) => {
                let message = format!("step {} cannot continue and is tried again: {why}", step.name);
                v1::Cause { code: "step_retried".to_owned(), message, hint: String::new() }
            }
        }
    }

    /// Returns why a workflow or a step of it has no place in its concurrency group.
    async fn group_cause(&self, workflow: &Workflow, step: Option<&Step>) -> Result<v1::Cause, Status> {
        let group = step.map_or(workflow.group.as_deref(), |step| step.group.as_deref());
        let name = group.map(|group| group.name.clone()).unwrap_or_default();
        let who = step.map_or("the workflow".to_owned(), |step| format!("step {}", step.name));
        let mut message = format!("{who} waits for a place in concurrency group {name}");
        let namespace = workflow.namespace.clone();
        let key = GroupKey { namespace, of_steps: step.is_some(), name };
        let members = self.query(WorkflowQuery::Group(key)).await?.members;
        let mut holders = Vec::new();
        let mut hints = Vec::new();
        for member in members.iter().filter(|member| member.holds).take(MAX_HOLDERS) {
            let key = member.member.0;
            if let Some(rows) = self.undamaged(WorkflowQuery::Key(key)).await? {
                let found = rows.workflows.into_iter().next();
                holders.extend(found.map(|found| found.alias.unwrap_or_else(|| found.id.to_string())));
                continue;
            }
            for id in self.query(WorkflowQuery::IdOf(key)).await?.ids {
                holders.push(format!("{id} (its record cannot be decoded)"));
                hints.push(format!(
                    "free its place: rota workflow cancel {id}, then rota workflow delete {id}"
                ));
            }
        }
        if !holders.is_empty() {
            let more = members.iter().filter(|member| member.holds).count() > MAX_HOLDERS;
            let others = if more { " and others" } else { "" };
            message.push_str(&format!(", held by {}{others}", holders.join(", ")));
        }
        let own = (workflow.key, step.map_or(WORKFLOW_MEMBER, |step| step.index));
        match members.iter().filter(|member| !member.holds).position(|member| member.member == own) {
            Some(0) => message.push_str("; it is the next one"),
            Some(before) => message.push_str(&format!("; {before} wait before it")),
            None => {}
        }
        Ok(v1::Cause { code: GROUP_FULL.to_owned(), message, hint: hints.join("; ") })
    }
}

/// Returns the cause of a step that waits for a person, of the first of some workflows, each of which is a step of the next one.
fn asking_cause(around: &[Workflow], step: &Step) -> Option<v1::Cause> {
    let mut cause = cause(around.first()?, step)?;
    for workflow in around.iter().take(around.len() - 1) {
        let name = workflow.parent.as_ref().map_or("", |parent| parent.step.name.as_str());
        cause = within(workflow, name, cause);
    }
    Some(cause)
}

/// Returns the cause that the record of a workflow, or of a step of it, cannot be decoded.
pub(super) fn damaged(workflow: WorkflowId, record: &str) -> v1::Cause {
    v1::Cause {
        code: WORKFLOW_DAMAGED.to_owned(),
        message: format!("{record} cannot be decoded"),
        hint: format!("nothing follows from its end; `rota workflow cancel {workflow}` ends what is left"),
    }
}

fn damaged_step(workflow: &Workflow, name: &str) -> v1::Cause {
    damaged(workflow.id, &format!("the record of step {name}"))
}

/// Adds to a cause of which workflow it is, and of which step that is one.
fn within(workflow: &Workflow, step: &str, cause: v1::Cause) -> v1::Cause {
    let message = format!("in workflow {} of step {step}: {}", workflow.id, cause.message);
    v1::Cause { message, ..cause }
}

/// Returns why a step that has started has not ended, or ended without success, or that a person must look at its compensation.
pub(super) fn cause(workflow: &Workflow, step: &Step) -> Option<v1::Cause> {
    let (name, id, none) = (&step.name, workflow.id, String::new());
    if step.compensation == Some(StepState::Failed) {
        return Some(v1::Cause {
            code: "compensation_failed".to_owned(),
            message: format!("the compensation of step {name} has failed: {}", step.message),
            hint: format!("resolve it: rota workflow resolve {id} --step {name} --retry, --done or --skip"),
        });
    }
    let (code, message, hint) = match workflow.state_of(step) {
        StepState::Succeeded | StepState::Waiting | StepState::Skipped => return None,
        StepState::Held | StepState::Ready if workflow.is_paused() => (
            "step_held",
            format!("step {name} waits: the workflow is paused"),
            format!("resume it: rota workflow resume {id}"),
        ),
        StepState::Ready if step.waits_for_group() => {
            ("step_held", format!("step {name} waits for a place in its concurrency group"), none)
        }
        StepState::Held if workflow.waits_for_group() => return None,
        StepState::Held if step.finally && workflow.state != State::Finalizing => {
            ("step_held", format!("step {name} runs once the other steps have ended"), none)
        }
        StepState::Held => ("step_held", format!("step {name} waits for a place or for its phase"), none),
        StepState::Ready | StepState::Ending => {
            ("step_evaluated", format!("the expressions of step {name} are evaluated"), none)
        }
        StepState::Running => match step.kind {
            Kind::Task => {
                let (open, total) = (step.open(), step.total);
                let text = format!("step {name} runs: {open} of {total} tasks are open");
                ("step_running", text, format!("its tasks: rota get tasks --workflow {id}"))
            }
            Kind::Workflow => {
                let (open, total) = (step.open(), step.total);
                let attempt = match step.max_attempts {
                    0 | 1 => String::new(),
                    most => format!(", in attempt {} of {most}", step.round),
                };
                let text = format!("step {name} runs: {open} of {total} workflows are open{attempt}");
                ("step_running", text, none)
            }
            Kind::Approval { .. } => {
                let text = format!("step {name} waits for a decision: {}", check::shorten(&step.question));
                (STEP_APPROVAL, text, format!("decide: rota workflow approve {id} --step {name}, or reject"))
            }
            Kind::Sleep { .. } => ("step_waiting", format!("step {name} waits for its time"), none),
            Kind::Signal { .. } => {
                let text = format!("step {name} waits for its signal");
                ("step_signal", text, format!("send it: rota workflow signal {id} SIGNAL"))
            }
        },
        StepState::Failed | StepState::Cancelled => {
            let failed = step.kind == Kind::Task && step.failed > 0;
            let hint = || format!("its tasks: rota get tasks --workflow {id} --state failed");
            ("step_failed", format!("step {name}: {}", step.message), failed.then(hint).unwrap_or_default())
        }
    };
    Some(v1::Cause { code: code.to_owned(), message, hint })
}
