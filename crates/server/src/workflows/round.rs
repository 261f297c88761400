//! Rounds of a step: what its tasks and its workflows have in common when a round starts or continues.

use std::collections::BTreeMap;

use rota_core::task::Trace;
use rota_core::workflow::{
    MAX_ITEMS, MAX_NESTED_ITEMS, MAX_ROUNDS, MAX_TASKS_PER_COMMIT, Start, Step, StepState, Workflow,
};
use rota_expressions::{Expression, Values};
use rota_proto::labels::CLUSTER;
use rota_proto::v1;
use rota_store::{Action, Create, CreateWorkflow, NewRound};
use serde_json::Value;

use super::typed;
use super::values::{self, NoValues, failed};
use crate::wire::workflow as wire;

/// Round that starts, before anything of it is created.
pub(super) struct Round {
    /// The step as it is once the round has started, with nothing created.
    pub(super) planned: Step,
    /// Items of a fan-out; `None` if there is none.
    pub(super) items: Option<Vec<Value>>,
}

impl Round {
    pub(super) fn new(step: &Step, spec: &v1::WorkflowStep, values: &Values) -> Result<Self, NoValues> {
        let items = items(spec, values)?;
        let total = match &items {
            Some(items) => u32::try_from(items.len()).unwrap_or(u32::MAX),
            None => u32::from(step.kind.is_created()),
        };
        Ok(Self { planned: planned(step, spec, values, total)?, items })
    }

    pub(super) fn is_first(&self) -> bool {
        self.planned.round <= 1
    }

    /// Returns how many tasks or workflows are filled in: all of a small first round, whose digest covers them.
    pub(super) fn count(&self) -> u32 {
        let total = self.planned.total;
        if self.is_first() && total as usize <= MAX_TASKS_PER_COMMIT { total } else { most(&self.planned) }
    }

    /// Returns the start of the round with its first tasks or workflows. `start` has what is not of every round.
    pub(super) fn start(self, start: Start, tasks: Vec<Create>, nested: Vec<CreateWorkflow>) -> Action {
        let created = tasks.len() + nested.len();
        let items = match self.items {
            Some(items) if created < items.len() || self.planned.compensates_each => items
                .chunks(values::ITEMS)
                .map(|part| Value::from(part).to_string().into_bytes().into())
                .collect(),
            _ => Vec::new(),
        };
        let Step { round, total, parallel, max_rounds, .. } = self.planned;
        let start = Start { round, total, parallel, max_rounds: Some(max_rounds), ..start };
        Action::Start(NewRound { start, items, tasks, nested })
    }
}

/// Returns the list of a fan-out: its items, or the agents that each have a task.
fn items(spec: &v1::WorkflowStep, values: &Values) -> Result<Option<Vec<Value>>, NoValues> {
    if let Some(v1::workflow_step::Kind::Task(task)) = &spec.kind
        && let Some(agents) = wire::all_agents(task)
    {
        return Ok(Some(agents.iter().cloned().map(Value::from).collect()));
    }
    let Some(for_each) = &spec.for_each else { return Ok(None) };
    let list = Expression::parse(&for_each.items).and_then(|items| items.evaluate_list(values));
    let list = list.map_err(failed)?;
    let most = match spec.kind {
        Some(v1::workflow_step::Kind::Workflow(_)) => MAX_NESTED_ITEMS,
        _ => MAX_ITEMS,
    };
    if list.len() > most as usize {
        return Err(failed(format!("the list has {} items; at most {most} are allowed", list.len())));
    }
    Ok(Some(list))
}

/// Returns the number of tasks that the next command creates, at most.
pub(super) fn most(step: &Step) -> u32 {
    u32::try_from(MAX_TASKS_PER_COMMIT).unwrap_or(u32::MAX).min(step.wanted())
}

/// Returns a step whose round has started with so many tasks or workflows, of which none was created. Its bounds may be expressions, which
/// are evaluated when its first round starts, and kept with the step.
fn planned(step: &Step, spec: &v1::WorkflowStep, values: &Values, total: u32) -> Result<Step, NoValues> {
    let mut planned = step.clone();
    (planned.state, planned.total, planned.created) = (StepState::Running, total, 0);
    if step.round > 1 {
        return Ok(planned);
    }
    if let Some(each) = &spec.for_each {
        let number = u32::try_from(each.max_parallel).unwrap_or(0);
        let evaluated = bound("forEach.maxParallel", &each.max_parallel_expression, values, MAX_ITEMS)?;
        planned.parallel = evaluated.unwrap_or(number);
    }
    if let Some(repeat) = &spec.repeat {
        let evaluated = bound("repeat.max", &repeat.max_expression, values, MAX_ROUNDS)?;
        planned.max_rounds = evaluated.unwrap_or(step.max_rounds);
    }
    Ok(planned)
}

fn bound(name: &str, expression: &str, values: &Values, most: u32) -> Result<Option<u32>, NoValues> {
    if expression.is_empty() {
        return Ok(None);
    }
    typed::number(name, typed::evaluate(expression, values)?, 1, most.into()).map(Some)
}

/// Returns the items of a round that has started, from the next one on. Those that are not stored are evaluated again: of a fan-out that
/// an earlier version has started.
pub(super) fn window(
    stored: Option<Vec<Value>>,
    step: &Step,
    spec: &v1::WorkflowStep,
    values: &Values,
) -> Result<Option<Vec<Value>>, NoValues> {
    let after = |list: Vec<Value>| list.into_iter().skip(step.created as usize).collect();
    match stored {
        Some(window) => Ok(Some(window)),
        None => Ok(items(spec, values)?.map(after)),
    }
}

/// Gives the owner and the title that a workflow passes on to a task or workflow of a step without its own. Returns its labels, which may not
/// be read as expressions, and its trace.
pub(super) fn inherit(
    workflow: &Workflow,
    step: &str,
    owner: &mut String,
    title: &mut String,
) -> (BTreeMap<String, String>, Trace) {
    if owner.is_empty() {
        owner.clone_from(&workflow.owner);
    }
    if title.is_empty() {
        step.clone_into(title);
    }
    let mut labels = workflow.labels.clone();
    // Its resource is the workflow's: an operator looks for one of each task with the label.
    labels.remove(CLUSTER);
    let parent = &workflow.trace;
    let span_id = rota_telemetry::traces::span_id();
    (labels, Trace { span_id, parent_id: parent.span_id, ..parent.clone() })
}
