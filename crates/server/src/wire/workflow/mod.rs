//! Workflows in messages: validation of new ones, and answers about stored ones.

mod agents;
mod concurrency;
mod graph;
mod merge;
mod nested;
mod stored;
mod to_wire;

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use rota_core::task::Trace;
use rota_core::workflow::{Kind, MAX_NESTING_STEPS, MAX_STEPS, Step, Workflow};
use rota_core::{Namespace, WorkflowId};
use rota_expressions::{Expression, MAX_COST, References, Template, Values};
use rota_proto::v1;
use rota_proto::v1::OnStepFailure;
use rota_store::{AddStep, CreateWorkflow, Need, NewStep};
use tonic::Status;

pub(crate) use self::agents::all_agents;
use self::agents::one_of_all;
pub(crate) use self::merge::workflow as merging_workflow;
pub(crate) use self::stored::{StoredSpec, StoredStep, whole};
pub(crate) use self::to_wire::{from_state, step, step_state, workflow};
use super::status::invalid;
use super::{check, names, schema, spec, time};

/// Bytes of the inputs of a workflow, and of the values of one step that expressions see.
pub(crate) const MAX_VALUES: usize = 64 << 10;
const MAX_KEY: usize = 256;
const MAX_NEEDS: usize = 256;
const MAX_FINALLY: usize = 64;
const MAX_OUTPUTS: usize = 64;
const MAX_ROUNDS: i32 = 1000;
const MAX_PROMPT: usize = 4 << 10;
/// Bytes of a task with expressions, as JSON. The lengths of its texts are checked when they are known.
const MAX_TASK: usize = 2 << 20;
/// Expressions of a workflow: each is parsed when it is created.
const MAX_EXPRESSIONS: usize = 20_000;

/// A workflow as a request names it.
pub(crate) enum WorkflowName {
    Id(WorkflowId),
    Alias(String),
}

pub(crate) fn name(field: &str, name: &str) -> Result<(Namespace, WorkflowName), Status> {
    let (namespace, id) = rota_proto::names::parse(name, "workflows").ok_or_else(|| {
        let shortened = check::shorten(name);
        invalid(field, format!("{shortened:?} is not of the form namespaces/NAMESPACE/workflows/ID"))
    })?;
    let namespace = names::namespace(field, namespace)?;
    let named = match id.parse() {
        Ok(id) => WorkflowName::Id(id),
        Err(_) => WorkflowName::Alias(names::alias(field, id)?),
    };
    Ok((namespace, named))
}

pub(crate) fn check(
    namespace: Namespace,
    id: WorkflowId,
    trace: Trace,
    request: v1::CreateWorkflowRequest,
) -> Result<CreateWorkflow, Status> {
    check::idempotency_key(&request.idempotency_key, MAX_KEY)?;
    let given = request.workflow.ok_or_else(|| invalid("workflow", "is required"))?;
    let mut spec = given.spec.ok_or_else(|| invalid("workflow.spec", "is required"))?;
    check::length("workflow.spec.title", &spec.title, check::MAX_TITLE)?;
    check::length("workflow.spec.owner", &spec.owner, check::MAX_TITLE)?;
    check::labels("workflow.labels", &given.labels)?;
    let values = inputs(&spec)?;
    let (steps, finally) = (std::mem::take(&mut spec.steps), std::mem::take(&mut spec.finally));
    if steps.is_empty() {
        return Err(invalid("workflow.spec.steps", "is empty"));
    }
    check::count("workflow.spec.steps", steps.len() + finally.len(), MAX_STEPS)?;
    check::count("workflow.spec.finally", finally.len(), MAX_FINALLY)?;

    let mut workflow = Workflow::new(id, namespace);
    workflow.alias = match given.alias.as_str() {
        "" => None,
        alias => Some(names::alias("workflow.alias", alias)?),
    };
    workflow.title.clone_from(&spec.title);
    workflow.owner.clone_from(&spec.owner);
    workflow.labels = given.labels;
    workflow.trace = trace;
    workflow.paused = request.paused;
    workflow.timeout = duration("workflow.spec.timeout", spec.timeout.as_ref())?;
    workflow.ttl = spec::ttl("workflow.ttl_after_finished", given.ttl_after_finished.as_ref())?;
    workflow.max_parallel = u32::try_from(spec.max_parallel)
        .map_err(|_| invalid("workflow.spec.max_parallel", "must not be negative"))?;
    let policy = policy(&spec);
    workflow.compensates = policy == OnStepFailure::Compensate;
    workflow.has_outputs = !spec.outputs.is_empty();

    let main = steps.len();
    let all: Vec<_> = steps.into_iter().chain(finally).collect();
    let graph = graph::Graph::new(&all, main..all.len())?;
    let used = outputs("workflow.spec.outputs", &spec.outputs)?;
    let seen = graph.resolve("workflow.spec.outputs", &used, None)?;
    if spec.outputs_schema.is_some() && spec.outputs.is_empty() {
        return Err(invalid("workflow.spec.outputs_schema", "needs outputs"));
    }
    outputs_validator(&spec)?;
    let mut used = used;
    workflow.group = concurrency::group("workflow.spec", spec.concurrency.as_ref(), &values, &mut used)?;
    let mut expressions = used.count;
    let mut new_steps = Vec::with_capacity(all.len());
    for (index, given) in all.into_iter().enumerate() {
        let (step, count) = new_step(&graph, index, given, policy, workflow.compensates, &values)?;
        expressions += count;
        if expressions > MAX_EXPRESSIONS {
            let why = format!("have more than {MAX_EXPRESSIONS} expressions");
            return Err(invalid("workflow.spec.steps", why));
        }
        new_steps.push(step);
    }
    let nesting = new_steps.iter().filter(|new| new.step.kind == Kind::Workflow).count();
    if nesting > MAX_NESTING_STEPS {
        let why = format!("have more than {MAX_NESTING_STEPS} workflows");
        return Err(invalid("workflow.spec.steps", why));
    }
    let spec = StoredSpec { spec: Some(spec), seen, rules: rota_expressions::RULES }.encode_to_vec().into();
    let key = Some(request.idempotency_key).filter(|key| !key.is_empty());
    let foreign_id = !request.workflow_id.is_empty();
    Ok(CreateWorkflow { workflow, spec, steps: new_steps, key, foreign_id })
}

fn policy(spec: &v1::WorkflowSpec) -> OnStepFailure {
    match spec.on_failure() {
        OnStepFailure::Unspecified => OnStepFailure::Stop,
        policy => policy,
    }
}

/// Checks a step that is to be added to a workflow. `steps` are those that it has, in the order of their indexes, and `spec` is the
/// rest of its specification.
pub(crate) fn check_added(
    workflow: &Workflow,
    spec: &v1::WorkflowSpec,
    mut steps: Vec<v1::WorkflowStep>,
    given: v1::WorkflowStep,
) -> Result<AddStep, Status> {
    use v1::workflow_step::Kind as Given;
    if steps.len() >= MAX_STEPS {
        return Err(invalid("step", format!("is one more than the {MAX_STEPS} that a workflow may have")));
    }
    let nests = matches!(given.kind, Some(Given::Workflow(_) | Given::Merge(_)));
    if nests && workflow.nests.len() >= MAX_NESTING_STEPS {
        return Err(invalid(
            "step.workflow",
            format!("is one more than the {MAX_NESTING_STEPS} that may be"),
        ));
    }
    let values = inputs(spec)?;
    let index = steps.len();
    let main = usize::try_from(workflow.main).unwrap_or(usize::MAX);
    let finals = usize::try_from(workflow.finals).unwrap_or(usize::MAX);
    steps.push(given.clone());
    let graph = graph::Graph::new(&steps, main..main.saturating_add(finals))?;
    let policy = policy(spec);
    let (step, _) = new_step(&graph, index, given, policy, workflow.compensates, &values)?;
    let stops = |need: &Need| {
        let needed = usize::try_from(need.step).unwrap_or(usize::MAX);
        (need.step, graph.stops(needed, policy))
    };
    let stops = step.needs.iter().map(stops).collect();
    let (namespace, id, total) = (workflow.namespace.clone(), workflow.id, workflow.total());
    Ok(AddStep { namespace, id, total, step, stops })
}

/// Checks the inputs by their schema. Returns them for the names of concurrency groups.
fn inputs(spec: &v1::WorkflowSpec) -> Result<Values, Status> {
    let json = |value: &Option<pbjson_types::Struct>| serde_json::to_value(value.clone().unwrap_or_default());
    let failed = |error: serde_json::Error| invalid("workflow.spec.inputs", error.to_string());
    let inputs = json(&spec.inputs).map_err(failed)?;
    check::length("workflow.spec.inputs", &inputs.to_string(), MAX_VALUES)?;
    let values = Values::default().inputs(whole(inputs.clone())).budget(MAX_COST);
    if spec.inputs_schema.is_none() {
        return Ok(values);
    }
    let schema = json(&spec.inputs_schema).map_err(failed)?;
    let validator = schema::validator("workflow.spec.inputs_schema", &schema, MAX_VALUES)?;
    schema::check(&validator, &inputs)
        .map_err(|(place, why)| invalid(format!("workflow.spec.inputs{place}"), why))?;
    Ok(values)
}

fn outputs_validator(spec: &v1::WorkflowSpec) -> Result<Option<jsonschema::Validator>, Status> {
    const FIELD: &str = "workflow.spec.outputs_schema";
    let Some(schema) = &spec.outputs_schema else { return Ok(None) };
    let schema = serde_json::to_value(schema).map_err(|error| invalid(FIELD, error.to_string()))?;
    schema::validator(FIELD, &schema, MAX_VALUES).map(Some)
}

/// Checks the outputs of a workflow by their schema. Returns which one does not match, and why.
pub(crate) fn check_outputs(spec: &v1::WorkflowSpec, outputs: &[u8]) -> Result<(), String> {
    let validator = outputs_validator(spec).map_err(|status| status.message().to_owned())?;
    let Some(validator) = validator else { return Ok(()) };
    let value = serde_json::from_slice(outputs).map_err(|error| error.to_string())?;
    schema::check(&validator, &value).map_err(|(place, why)| {
        let name = place.trim_start_matches('/');
        if name.is_empty() { why } else { format!("{name}: {why}") }
    })
}

fn duration(field: &str, given: Option<&pbjson_types::Duration>) -> Result<Option<Duration>, Status> {
    let duration = time::from_duration(field, given)?;
    match duration {
        Some(duration) if duration.is_zero() => Err(invalid(field, "must be longer than 0 s")),
        other => Ok(other),
    }
}

fn expression(field: &str, text: &str) -> Result<References, Status> {
    let parsed = Expression::parse(text).map_err(|error| invalid(field, error.to_string()))?;
    Ok(parsed.references().clone())
}

fn template(field: &str, text: &str) -> Result<References, Status> {
    Template::parse(text)
        .map(|template| template.references())
        .map_err(|error| invalid(field, error.to_string()))
}

fn outputs(field: &str, outputs: &BTreeMap<String, String>) -> Result<References, Status> {
    check::count(field, outputs.len(), MAX_OUTPUTS)?;
    let mut all = References::default();
    for (name, text) in outputs {
        check::length(field, name, 63)?;
        let field = format!("{field}[{:?}]", check::shorten(name));
        check::length(&field, text, MAX_VALUES)?;
        all.merge(&template(&field, text)?);
    }
    Ok(all)
}

/// Checks the task of a step, and returns what its expressions use.
fn task_spec(field: &str, given: &v1::TaskSpec) -> Result<References, Status> {
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
        let task = v1::Task { spec: Some(given.clone()), ..v1::Task::default() };
        let id = rota_core::TaskId(uuid::Uuid::now_v7());
        spec::check(namespace, id, Trace::default(), task)
            .map_err(|status| invalid(field, status.message().to_owned()))?;
    }
    Ok(references)
}

/// Returns a step, and the number of its expressions.
fn new_step(
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
    }
    let mut max_rounds = 1;
    if let Some(repeat) = &given.repeat {
        if !(1..=MAX_ROUNDS).contains(&repeat.max) {
            return Err(invalid(at("repeat.max"), format!("must be from 1 to {MAX_ROUNDS}")));
        }
        if !is_created {
            return Err(invalid(at("repeat"), "is for steps with a task or a workflow"));
        }
        if kind == Kind::Workflow && given.for_each.is_some() {
            return Err(invalid(at("repeat"), "must not be set together with for_each for a workflow"));
        }
        max_rounds = u32::try_from(repeat.max).unwrap_or(1);
        with_itself.merge(&expression(&at("repeat.until"), &repeat.until)?);
    }
    if used.item && given.for_each.is_none() {
        return Err(invalid(field, "reads `item` or `index` without for_each"));
    }
    if used.previous && (given.repeat.is_none() || given.for_each.is_some()) {
        return Err(invalid(
            field,
            "reads `previous`, which only steps with repeat and without for_each have",
        ));
    }
    with_itself.merge(&outputs(&at("outputs"), &given.outputs)?);
    if let Some(compensate) = &given.compensate {
        if !compensates {
            return Err(invalid(at("compensate"), "needs on_failure COMPENSATE of the workflow"));
        }
        if graph.is_finally(index) {
            return Err(invalid(at("compensate"), "is not for finally-steps"));
        }
        let compensate = one_of_all(&at("compensate"), compensate, true)?;
        with_itself.merge(&task_spec(&at("compensate"), &compensate)?);
    }
    if given.priority.is_some_and(|priority| !(0..=10).contains(&priority)) {
        return Err(invalid(at("priority"), "must be from 0 to 10"));
    }
    if kind == Kind::Workflow && given.concurrency.is_some() {
        let why = "must not be set for a workflow, which may have a group itself";
        return Err(invalid(at("concurrency"), why));
    }
    let group = concurrency::group(&field, given.concurrency.as_ref(), inputs, &mut used)?;
    let mut seen = graph.resolve(&field, &used, Some((index, false)))?;
    seen.append(&mut graph.resolve(&field, &with_itself, Some((index, true)))?);

    let mut step = Step::new(given.name.clone(), kind);
    step.finally = graph.is_finally(index);
    step.stops = graph.stops(index, policy);
    step.group = group;
    step.compensates = given.compensate.is_some();
    step.evaluates_end = given.repeat.is_some() || !given.outputs.is_empty();
    step.has_dependents = graph.has_dependents(index);
    step.max_rounds = max_rounds;
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
            None => return Err(invalid(at("wait"), "needs a duration or a signal")),
        },
    })
}
