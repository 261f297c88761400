//! A step of a workflow, from its message: checked with its expressions.

use std::time::Duration;

use prost::Message;
use rota_core::task::Trace;
use rota_core::workflow::{Kind, MAX_ROUNDS, Step};
use rota_expressions::{References, Values};
use rota_proto::v1::{self, OnStepFailure};
use rota_store::{Need, NewStep};
use tonic::Status;

use super::agents::{all_agents, one_of_all};
use super::stored::StoredStep;
use super::{concurrency, duration, expression, expressions, graph, merge, nested, outputs, template};
use crate::wire::status::invalid;
use crate::wire::{check, names, spec, time};

const MAX_NEEDS: usize = 256;
/// Workflows that a step may run until one succeeds.
const MAX_ATTEMPTS: u32 = 10;
const MAX_PROMPT: usize = 4 << 10;
/// Bytes of a task with expressions, as JSON. The lengths of its texts are checked when they are known.
pub(super) const MAX_TASK: usize = 2 << 20;

/// Checks the task of a step, and returns what its expressions use.
pub(super) fn task_spec(field: &str, given: &v1::TaskSpec) -> Result<References, Status> {
    for (name, is_set) in [
        ("depends_on", !given.depends_on.is_empty()),
        ("secrets", !given.secrets.is_empty()),
        ("parent_task", !given.parent_task.is_empty()),
        ("inputs", !given.inputs.is_empty()),
        // The results of its tasks are those of the workflow.
        ("ttl_after_finished", given.ttl_after_finished.is_some()),
    ] {
        if is_set {
            return Err(invalid(format!("{field}.{name}"), "must not be set for a step"));
        }
    }
    let json = serde_json::to_value(given).map_err(|error| invalid(field, error.to_string()))?;
    let text = json.to_string();
    check::length(field, &text, MAX_TASK)?;
    let references =
        rota_expressions::references(&json).map_err(|error| invalid(field, error.to_string()))?;
    if !text.contains("${{") {
        // What has none is checked now rather than when the step starts.
        let namespace = names::namespace(field, "default")?;
        let task = v1::Task { spec: Some(Box::new(given.clone())), ..v1::Task::default() };
        let id = rota_core::TaskId(uuid::Uuid::now_v7());
        spec::check(namespace, id, Trace::default(), task)
            .map_err(|status| invalid(field, status.message().to_owned()))?;
    }
    Ok(references)
}

/// Returns a step, and the number of its expressions.
pub(super) fn new_step(
    graph: &graph::Graph,
    index: usize,
    given: v1::WorkflowStep,
    policy: OnStepFailure,
    compensates: bool,
    inputs: &Values,
) -> Result<(NewStep, usize), Status> {
    let field = graph.field(index);
    let at = |name: &str| format!("{field}.{name}");
    check::count(&at("needs"), given.needs.len(), MAX_NEEDS)?;
    let mut used = References::default();
    let mut with_itself = References::default();
    if !given.condition.is_empty() {
        used.merge(&expression(&at("condition"), &given.condition)?);
    }
    let (typed, typed_of_compensation) = expressions::check(&field, &given)?;
    used.merge(&typed);
    let kind = kind(&field, &given, &mut used)?;
    let is_created = kind.is_created();
    if let Some(for_each) = &given.for_each {
        if !is_created {
            return Err(invalid(at("for_each"), "is for steps with a task or a workflow"));
        }
        if for_each.max_parallel < 0 {
            return Err(invalid(at("for_each.max_parallel"), "must not be negative"));
        }
        used.merge(&expression(&at("for_each.items"), &for_each.items)?);
        let field = at("for_each.max_parallel");
        used.merge(&bound(&field, for_each.max_parallel, &for_each.max_parallel_expression)?);
    }
    let mut max_rounds = 1;
    if let Some(repeat) = &given.repeat {
        used.merge(&bound(&at("repeat.max"), repeat.max, &repeat.max_expression)?);
        // An expression is evaluated when the step is ready.
        let is_evaluated = !repeat.max_expression.is_empty();
        max_rounds = if is_evaluated { MAX_ROUNDS } else { u32::try_from(repeat.max).unwrap_or_default() };
        if !(1..=MAX_ROUNDS).contains(&max_rounds) {
            return Err(invalid(at("repeat.max"), format!("must be from 1 to {MAX_ROUNDS}")));
        }
        if !is_created {
            return Err(invalid(at("repeat"), "is for steps with a task or a workflow"));
        }
        if kind == Kind::Workflow && given.for_each.is_some() {
            return Err(invalid(at("repeat"), "must not be set together with for_each for a workflow"));
        }
        with_itself.merge(&expression(&at("repeat.until"), &repeat.until)?);
    }
    if used.item && given.for_each.is_none() {
        return Err(invalid(field, "reads `item` or `index` without for_each"));
    }
    let is_for_all = matches!(
        &given.kind,
        Some(v1::workflow_step::Kind::Task(task)) if all_agents(task).is_some()
    );
    with_itself.merge(&outputs(&at("outputs"), &given.outputs)?);
    if with_itself.item {
        return Err(invalid(
            field,
            "reads `item` or `index` in repeat.until or outputs, which are of all elements",
        ));
    }
    with_itself.merge(&typed_of_compensation);
    if let Some(compensate) = &given.compensate {
        if !compensates {
            return Err(invalid(at("compensate"), "needs on_failure COMPENSATE of the workflow"));
        }
        if graph.is_finally(index) {
            return Err(invalid(at("compensate"), "is not for finally-steps"));
        }
        let compensate = one_of_all(&at("compensate"), compensate, true)?;
        let reads = task_spec(&at("compensate"), &compensate)?;
        if reads.item && given.for_each.is_none() {
            return Err(invalid(at("compensate"), "reads `item` or `index` without for_each"));
        }
        with_itself.merge(&reads);
    }
    if typed_of_compensation.item && given.for_each.is_none() {
        return Err(invalid(at("expressions"), "reads `item` or `index` without for_each"));
    }
    let has_previous = given.repeat.is_some() && given.for_each.is_none() && !is_for_all;
    if (used.previous || with_itself.previous) && !has_previous {
        return Err(invalid(
            field,
            "reads `previous`, which only steps with repeat have, without for_each or several agents",
        ));
    }
    if given.priority.is_some_and(|priority| !(0..=10).contains(&priority)) {
        return Err(invalid(at("priority"), "must be from 0 to 10"));
    }
    if given.concurrency.is_some() && nested::has_groups(&given) {
        let why = "must not be set for a workflow that has a group, or a step with one: each could wait for the other";
        return Err(invalid(at("concurrency"), why));
    }
    let max_attempts = attempts(&field, &given, kind)?;
    let group = concurrency::group(&field, given.concurrency.as_ref(), inputs, &mut used)?;
    let mut seen = graph.resolve(&field, &used, Some((index, false)))?;
    seen.append(&mut graph.resolve(&field, &with_itself, Some((index, true)))?);

    let mut step = Step::new(given.name.clone(), kind);
    step.finally = graph.is_finally(index);
    step.stops = graph.stops(index, policy);
    step.group = group;
    step.compensates = given.compensate.is_some();
    step.compensates_each = step.compensates && given.for_each.is_some();
    step.evaluates_end = given.repeat.is_some() || !given.outputs.is_empty();
    step.has_dependents = graph.has_dependents(index);
    step.max_rounds = max_rounds;
    step.max_attempts = max_attempts;
    let needs: Vec<_> = graph
        .needs(index)
        .iter()
        .zip(&given.needs)
        .map(|(needed, need)| {
            let own = match need.on_failure() {
                OnStepFailure::Unspecified => policy,
                own => own,
            };
            Need { step: *needed, continues: own == OnStepFailure::Continue }
        })
        .collect();
    step.needs = u32::try_from(needs.len()).unwrap_or(u32::MAX);
    step.follows = !needs.is_empty();
    let needed = graph.needs(index).to_vec();
    let spec = StoredStep { step: Some(given), seen, needs: needed }.encode_to_vec().into();
    Ok((NewStep { step, spec, needs }, used.count + with_itself.count))
}

/// Checks the time, the budget and the number of attempts of a step's workflow. Returns the latter, or 0 if there is none.
fn attempts(field: &str, given: &v1::WorkflowStep, kind: Kind) -> Result<u32, Status> {
    let at = |name: &str| format!("{field}.{name}");
    duration(&at("timeout"), given.timeout.as_ref())?;
    let has_timeout = given.timeout.is_some() || given.expressions.contains_key("timeout");
    for (name, is_set, own) in [
        ("timeout", has_timeout, "limits.timeout"),
        ("budget_micro_usd", given.budget_micro_usd != 0, "limits.budgetMicroUsd"),
        ("max_attempts", given.max_attempts.is_some(), "retry.maxAttempts"),
    ] {
        if is_set && kind != Kind::Workflow {
            return Err(invalid(
                at(name),
                format!("is for steps with a workflow or a merge; a task has {own}"),
            ));
        }
    }
    if given.budget_micro_usd < 0 {
        return Err(invalid(at("budget_micro_usd"), "must not be negative"));
    }
    let Some(number) = given.max_attempts else { return Ok(0) };
    if given.for_each.is_some() || given.repeat.is_some() {
        return Err(invalid(at("max_attempts"), "must not be set together with for_each or repeat"));
    }
    let number = u32::try_from(number).ok().filter(|number| (1..=MAX_ATTEMPTS).contains(number));
    number.ok_or_else(|| invalid(at("max_attempts"), format!("must be from 1 to {MAX_ATTEMPTS}")))
}

/// Returns what the expression in place of a number uses. It belongs to no item and no round.
fn bound(field: &str, number: i32, text: &str) -> Result<References, Status> {
    if text.is_empty() {
        return Ok(References::default());
    }
    if number != 0 {
        return Err(invalid(field, "must not be set together with an expression in its place"));
    }
    let used = expression(field, text)?;
    if used.item || used.round || used.previous {
        return Err(invalid(field, "reads a value of an item or of a round, and is evaluated before them"));
    }
    Ok(used)
}

fn kind(field: &str, given: &v1::WorkflowStep, used: &mut References) -> Result<Kind, Status> {
    use v1::workflow_step::Kind as Given;
    let at = |name: &str| format!("{field}.{name}");
    Ok(match &given.kind {
        None => return Err(invalid(field, "needs one of task, approval, wait, workflow, merge")),
        Some(Given::Task(task)) => {
            let task = one_of_all(&at("task"), task, given.for_each.is_some())?;
            used.merge(&task_spec(&at("task"), &task)?);
            Kind::Task
        }
        Some(Given::Workflow(workflow)) => {
            used.merge(&nested::check(&at("workflow"), workflow)?);
            Kind::Workflow
        }
        Some(Given::Merge(merge)) => {
            if given.for_each.is_some() || given.repeat.is_some() {
                return Err(invalid(field, "must not be repeated for a merge"));
            }
            used.merge(&merge::check(&at("merge"), merge)?);
            Kind::Workflow
        }
        Some(Given::Approval(approval)) => {
            if approval.prompt.is_empty() {
                return Err(invalid(at("approval.prompt"), "is required"));
            }
            check::length(&at("approval.prompt"), &approval.prompt, MAX_PROMPT)?;
            used.merge(&template(&at("approval.prompt"), &approval.prompt)?);
            Kind::Approval {
                deadline: duration(&at("approval.deadline"), approval.deadline.as_ref())?,
                approves: approval.default_decision() == v1::StepDecision::Approve,
            }
        }
        Some(Given::Wait(wait)) => match &wait.kind {
            Some(v1::step_wait::Kind::Duration(duration)) => Kind::Sleep {
                duration: time::from_duration(&at("wait.duration"), Some(duration))?.unwrap_or_default(),
            },
            Some(v1::step_wait::Kind::Signal(signal)) if rota_core::ids::is_name(signal) => {
                Kind::Signal { timeout: duration(&at("wait.timeout"), wait.timeout.as_ref())? }
            }
            Some(v1::step_wait::Kind::Signal(_)) => {
                return Err(invalid(
                    at("wait.signal"),
                    "is not a name: use lower-case letters, digits and '-'",
                ));
            }
            // Until it starts.
            None if given.expressions.contains_key("wait.duration") => {
                Kind::Sleep { duration: Duration::ZERO }
            }
            None => return Err(invalid(at("wait"), "needs a duration or a signal")),
        },
    })
}
