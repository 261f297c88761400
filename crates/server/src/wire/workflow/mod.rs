//! Workflows in messages: validation of new ones, and answers about stored ones.

mod agents;
mod concurrency;
mod expressions;
mod files;
mod graph;
mod labels;
mod merge;
mod nested;
mod new_step;
mod stored;
mod to_wire;

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use rota_core::task::Trace;
use rota_core::workflow::{Kind, MAX_NESTING_STEPS, MAX_STEPS, Workflow};
use rota_core::{Namespace, WorkflowId};
use rota_expressions::{Expression, MAX_COST, References, Template, Values};
use rota_proto::num::whole;
use rota_proto::v1;
use rota_proto::v1::OnStepFailure;
use rota_store::{AddStep, CreateWorkflow, Need};
use tonic::Status;

pub(crate) use self::agents::all_agents;
pub(crate) use self::expressions::is_time;
pub(crate) use self::files::{Files, add_values, distinct, passed_on};
pub(crate) use self::merge::workflow as merging_workflow;
use self::new_step::new_step;
pub(crate) use self::stored::{StoredSpec, StoredStep};
pub(crate) use self::to_wire::{from_state, step, step_state, workflow};
use super::status::invalid;
use super::{check, names, schema, spec, time};

/// Bytes of the inputs of a workflow, and of the values of one step that expressions see.
pub(crate) const MAX_VALUES: usize = 64 << 10;
const MAX_KEY: usize = 256;
/// Bytes of a specification with the steps that were added: those of a request to create it. It is returned as a whole.
const MAX_SPEC: usize = 8 << 20;
const MAX_FINALLY: usize = 64;
const MAX_OUTPUTS: usize = 64;
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

/// Checks a new workflow. A template has been replaced by its specification, and is the one of which the workflow was made.
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
    if !spec.input_files.is_empty() {
        let inputs = spec.inputs.get_or_insert_default();
        add_values("workflow.spec.inputs", &spec.input_files, inputs)?;
    }
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
    workflow.trace = trace;
    workflow.template = request.template;
    workflow.paused = request.paused;
    workflow.timeout = duration("workflow.spec.timeout", spec.timeout.as_ref())?;
    workflow.budget_micro_usd = match spec.budget_micro_usd {
        0 => None,
        budget @ 1.. => Some(budget),
        _ => return Err(invalid("workflow.spec.budget_micro_usd", "must not be negative")),
    };
    workflow.counts_cost = workflow.budget_micro_usd.is_some();
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
    outputs_schema(&spec)?;
    let mut used = used;
    workflow.labels = labels::evaluated(given.labels, &values, &mut used)?;
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
    Ok(CreateWorkflow { spec, key, foreign_id, ..CreateWorkflow::new(workflow, new_steps) })
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
    let size = spec.encoded_len() + steps.iter().chain([&given]).map(Message::encoded_len).sum::<usize>();
    if size > MAX_SPEC {
        return Err(invalid("step", format!("makes the workflow larger than {MAX_SPEC} bytes")));
    }
    let nests = matches!(given.kind, Some(Given::Workflow(_) | Given::Merge(_)));
    if nests && workflow.nests.len() >= MAX_NESTING_STEPS {
        return Err(invalid(
            "step.workflow",
            format!("is one more than the {MAX_NESTING_STEPS} that may be"),
        ));
    }
    let values = inputs(spec)?;
    let known: usize = steps.iter().map(expressions::count).sum();
    let index = steps.len();
    let main = usize::try_from(workflow.main).unwrap_or(usize::MAX);
    let finals = usize::try_from(workflow.finals).unwrap_or(usize::MAX);
    steps.push(given.clone());
    let graph = graph::Graph::new(&steps, main..main.saturating_add(finals))?;
    let policy = policy(spec);
    let (step, count) = new_step(&graph, index, given, policy, workflow.compensates, &values)?;
    if known + count > MAX_EXPRESSIONS {
        let why = format!("gives the workflow more than {MAX_EXPRESSIONS} expressions");
        return Err(invalid("step", why));
    }
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
    let schema = schema::parse("workflow.spec.inputs_schema", &schema, MAX_VALUES)?;
    schema::check(&schema, &inputs)
        .map_err(|(place, why)| invalid(format!("workflow.spec.inputs{place}"), why))?;
    Ok(values)
}

fn outputs_schema(spec: &v1::WorkflowSpec) -> Result<Option<schema::Schema>, Status> {
    const FIELD: &str = "workflow.spec.outputs_schema";
    let Some(schema) = &spec.outputs_schema else { return Ok(None) };
    let schema = serde_json::to_value(schema).map_err(|error| invalid(FIELD, error.to_string()))?;
    schema::parse(FIELD, &schema, MAX_VALUES).map(Some)
}

/// Checks the outputs of a workflow by their schema. Returns which one does not match, and why.
pub(crate) fn check_outputs(spec: &v1::WorkflowSpec, outputs: &[u8]) -> Result<(), String> {
    let schema = outputs_schema(spec).map_err(|status| status.message().to_owned())?;
    let Some(schema) = schema else { return Ok(()) };
    let value = serde_json::from_slice(outputs).map_err(|error| error.to_string())?;
    schema::check(&schema, &value).map_err(|(place, why)| {
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
