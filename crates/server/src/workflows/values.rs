//! Values that expressions of a step see.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::{Kind, State, Step, StepState, Workflow};
use rota_expressions::Values;
use rota_proto::num::whole;
use rota_proto::v1;
use rota_store::{WORKFLOW_OUTPUT, WorkflowQuery, reused_results, step_items};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use super::outcomes;
use crate::store_client::StoreClient;
use crate::wire::status;
use crate::wire::workflow::{MAX_VALUES, StoredSpec};

/// Most tasks of a step whose results are read.
const MAX_RESULTS: usize = 10_000;
/// Items of a fan-out in one row.
pub(super) const ITEMS: usize = 256;
/// Bytes of the values of all steps that one evaluation sees. Decoded they take up to 30 times as much.
const MAX_SEEN: usize = 1 << 20;
/// Work of all expressions of one command of the driver: about 10 s.
pub(super) const MAX_WORK: u64 = 10 * rota_expressions::MAX_COST;
/// Steps of one read of the store: their outputs fit into [`MAX_SEEN`].
const PAGE: usize = 16;

/// Why values cannot be had.
pub(super) enum NoValues {
    /// The store does not answer now.
    Store(Status),
    /// Something that the step needs is not there now.
    Later(Status),
    /// The step cannot have them.
    Step(String),
}

impl From<rota_store::Error> for NoValues {
    fn from(error: rota_store::Error) -> Self {
        match error {
            rota_store::Error::Corrupt(reason) => Self::Step(format!("a record cannot be decoded: {reason}")),
            error => Self::Store(status::store(error)),
        }
    }
}

pub(super) fn failed(error: impl std::fmt::Display) -> NoValues {
    NoValues::Step(error.to_string())
}

/// Returns whether what a step needs may be there later. A damaged record stays damaged.
pub(super) fn not_now(status: Status) -> NoValues {
    match status.code() {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::PermissionDenied
        | Code::DataLoss => NoValues::Step(status.message().to_owned()),
        _ => NoValues::Later(status),
    }
}

/// Why a task, or the inputs of a workflow, cannot be filled in.
pub(super) enum NoFill {
    /// The work of earlier expressions has left too little for it.
    Spent(String),
    Failed(String),
}

impl From<rota_expressions::Error> for NoFill {
    fn from(error: rota_expressions::Error) -> Self {
        match error {
            rota_expressions::Error::Spent { .. } => Self::Spent(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for NoFill {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<NoFill> for NoValues {
    fn from(why: NoFill) -> Self {
        let (NoFill::Spent(message) | NoFill::Failed(message)) = why;
        Self::Step(message)
    }
}

/// Bytes that the values of further steps may have.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), NoValues> {
        let why = || format!("the values of the steps that are read have more than {MAX_SEEN} bytes");
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| NoValues::Step(why()))?;
        Ok(())
    }
}

/// Reads the inputs, which are in the spec of the workflow, and the steps that are seen.
pub(super) async fn read(
    store: &StoreClient,
    workflow: &Workflow,
    stored: &StoredSpec,
    seen: &BTreeMap<String, u32>,
) -> Result<Values, NoValues> {
    if !stored.has_known_rules() {
        let why = format!(
            "a later version has created workflow {}, whose expressions have rules that this version does not know: upgrade the control plane",
            workflow.id
        );
        return Err(NoValues::Later(Status::unavailable(why)));
    }
    let inputs = stored.spec.as_ref().and_then(|spec| spec.inputs.as_ref());
    let inputs = inputs.map(|inputs| whole(serde_json::to_value(inputs).unwrap_or_default()));
    // Finally-steps act on the outcome, not on the phase that they are.
    let state = match workflow.state {
        State::Finalizing => workflow.final_state(),
        state => state,
    };
    let about = json!({
        "id": workflow.id.to_string(),
        "name": workflow.alias.clone().unwrap_or_else(|| workflow.id.to_string()),
        "status": state.name(),
        "failedStep": workflow.failed_step,
        "message": workflow.message,
    });
    let mut steps = Map::new();
    let mut room = Room(MAX_SEEN);
    let indexes: Vec<_> = seen.values().copied().collect();
    for page in indexes.chunks(PAGE) {
        let rows = store.reads().workflows(WorkflowQuery::StepsAt(workflow.key, page.to_vec())).await?;
        let outputs = store.reads().workflows(WorkflowQuery::Outputs(workflow.key, page.to_vec())).await?;
        let outputs: BTreeMap<_, _> = outputs.bodies.into_iter().collect();
        for step in &rows.steps {
            let body = outputs.get(&step.index);
            room.take(step.name.len() + step.message.len() + body.map_or(0, bytes::Bytes::len))?;
            let output = body.map(|body| whole(serde_json::from_slice(body).unwrap_or_default()));
            steps.insert(step.name.clone(), of_step(store, workflow, step, output, &mut room).await?);
        }
    }
    Ok(Values::default()
        .inputs(inputs.unwrap_or_else(|| Value::Object(Map::new())))
        .steps(steps)
        .workflow(about)
        .budget(MAX_WORK))
}

pub(super) fn decode(spec: Bytes) -> Result<StoredSpec, NoValues> {
    StoredSpec::decode(spec).map_err(|error| NoValues::Step(format!("the spec cannot be decoded: {error}")))
}

async fn of_step(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
    output: Option<Value>,
    room: &mut Room,
) -> Result<Value, NoValues> {
    let is_created = step.kind.is_created();
    let results = if is_created { read_results(store, workflow, step, room).await? } else { Vec::new() };
    let (result, outputs) = match is_created {
        true => (single(&results), output),
        false => (output.unwrap_or_default(), None),
    };
    Ok(json!({
        "state": workflow.state_of(step).name(), "message": step.message, "round": step.round,
        "result": result, "results": results, "outputs": outputs,
    }))
}

/// Returns a step whose round has ended, as its own condition sees it.
pub(super) fn ending(round: u32, results: &[Value]) -> Value {
    json!({
        "state": StepState::Ending.name(), "message": "", "round": round,
        "result": single(results), "results": results, "outputs": null,
    })
}

/// Reads items of a fan-out, if they were stored when it started: some of them, from this one on.
pub(super) async fn items(
    store: &StoreClient,
    step: &Step,
    from: u32,
) -> Result<Option<Vec<Value>>, NoValues> {
    let (part, skipped) = (from as usize / ITEMS, from as usize % ITEMS);
    let row = step_items(step.index, u32::try_from(part).unwrap_or(u32::MAX));
    let rows = store.reads().workflows(WorkflowQuery::Outputs(step.workflow, vec![row])).await?;
    let Some((_, body)) = rows.bodies.into_iter().next() else { return Ok(None) };
    let items: Vec<Value> = serde_json::from_slice(&body).map_err(failed)?;
    Ok(Some(items.into_iter().skip(skipped).collect()))
}

fn single(results: &[Value]) -> Value {
    match results {
        [one] => one.clone(),
        _ => Value::Null,
    }
}

/// Reads the result of the round before the current one: null in the first.
pub(super) async fn previous(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
) -> Result<Value, NoValues> {
    // Of a reused step only the last round was copied.
    if step.round <= 1 || step.reused {
        return Ok(Value::Null);
    }
    let before = Step { round: step.round - 1, total: 1, created: 1, ..step.clone() };
    Ok(single(&results(store, workflow, &before).await?))
}

/// Reads the results of the tasks of a step's last round, by item.
pub(super) async fn results(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
) -> Result<Vec<Value>, NoValues> {
    read_results(store, workflow, step, &mut Room(MAX_SEEN)).await
}

async fn read_results(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
    room: &mut Room,
) -> Result<Vec<Value>, NoValues> {
    if step.total == 0 || step.round == 0 {
        return Ok(Vec::new());
    }
    if step.reused {
        let query = WorkflowQuery::Outputs(workflow.key, vec![reused_results(step.index)]);
        let Some((_, body)) = store.reads().workflows(query).await?.bodies.into_iter().next() else {
            return Ok(Vec::new());
        };
        room.take(body.len())?;
        return Ok(serde_json::from_slice(&body).unwrap_or_default());
    }
    if step.kind == Kind::Workflow {
        let (results, bytes) = outcomes::results(store, workflow, step).await?;
        room.take(bytes)?;
        return Ok(results);
    }
    let query = WorkflowQuery::Tasks {
        workflow: workflow.key,
        step: step.index,
        round: step.round,
        from: 0,
        limit: MAX_RESULTS,
        bytes: MAX_VALUES,
    };
    let tasks = store.reads().workflows(query).await?.tasks;
    // The store returns the one with which there are too many, too.
    let bytes: usize = tasks.iter().filter_map(|(_, payload)| payload.as_ref()).map(bytes::Bytes::len).sum();
    if bytes > MAX_VALUES {
        let why = format!("the results of step {} have more than {MAX_VALUES} bytes", step.name);
        return Err(NoValues::Step(why));
    }
    room.take(bytes)?;
    // One that was refused at its creation has no task.
    let mut results = vec![Value::Null; step.created as usize];
    for (task, payload) in &tasks {
        let item = task.step.as_ref().map_or(0, |place| place.item as usize);
        if let (Some(result), Some(payload)) = (results.get_mut(item), payload) {
            *result = of_result(payload);
        }
    }
    Ok(results)
}

/// Returns the data of a result, with its text as `text`.
pub(super) fn of_result(payload: &Bytes) -> Value {
    let Ok(result) = v1::TaskResult::decode(payload.clone()) else { return Value::Null };
    let data = result.data.map(|data| whole(serde_json::to_value(data).unwrap_or_default()));
    let mut value = match data {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    value.entry("text").or_insert(Value::String(result.text));
    if let Some(code) = result.exit_code {
        value.entry("exitCode").or_insert(json!(code));
    }
    if let Some(delivery) = result.delivery {
        // The commit from which others may start: what was pushed, or else where the task itself has started.
        let pushed = !delivery.commit.is_empty();
        let commit = if pushed { delivery.commit } else { delivery.base_commit };
        let page = delivery.pull_request.map(|request| request.url).unwrap_or_default();
        // In place of what the agent calls so: steps that start from its work rely on them.
        let facts = [("commit", commit), ("branch", delivery.branch), ("pullRequest", page)];
        value.extend(facts.map(|(name, fact)| (name.to_owned(), fact.into())));
    }
    Value::Object(value)
}

/// Returns the stored outputs of a workflow.
pub(crate) async fn outputs(
    store: &StoreClient,
    workflow: WorkflowKey,
) -> Result<Option<pbjson_types::Struct>, Status> {
    let query = WorkflowQuery::Outputs(workflow, vec![WORKFLOW_OUTPUT]);
    let rows = store.reads().workflows(query).await.map_err(status::store)?;
    Ok(rows.bodies.first().and_then(|(_, body)| serde_json::from_slice(body).ok()))
}

/// Returns the outputs of the workflows of a step's last round, by item. None if they are too large to be read.
pub(crate) async fn nested_results(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
) -> Result<Vec<Value>, Status> {
    match results(store, workflow, step).await {
        Ok(results) => Ok(results),
        Err(NoValues::Step(_)) => Ok(Vec::new()),
        Err(NoValues::Store(status) | NoValues::Later(status)) => Err(status),
    }
}
