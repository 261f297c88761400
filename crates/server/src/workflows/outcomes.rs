//! Results that workflows leave to the steps that they are.

use std::ops::Range;

use bytes::Bytes;
use rota_core::workflow::{State, Step, Workflow};
use rota_proto::num::whole;
use rota_store::WorkflowQuery;
use serde_json::{Map, Value};

use super::values::NoValues;
use crate::store_client::StoreClient;
use crate::wire::workflow::MAX_VALUES;

/// Workflows whose outcomes are read with one call. Each has outputs of at most [`MAX_VALUES`].
pub(super) const OUTCOMES: u32 = 64;

/// Reads the outputs of the workflow of a step's last round for an item, and their size. None if it has not succeeded.
pub(super) async fn result(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
    item: u32,
) -> Result<Option<(Value, usize)>, NoValues> {
    Ok(outcomes(store, workflow, step, item..item + 1).await?.pop().flatten())
}

/// Reads the outputs of the workflows of a step's last round, by item, and their size: null for those that have not succeeded.
pub(super) async fn results(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
) -> Result<(Vec<Value>, usize), NoValues> {
    let (mut results, mut bytes) = (Vec::new(), 0);
    for from in (0..step.created).step_by(OUTCOMES as usize) {
        let items = from..step.created.min(from.saturating_add(OUTCOMES));
        for outcome in outcomes(store, workflow, step, items).await? {
            let (value, size) = outcome.unwrap_or_default();
            bytes += size;
            if bytes > MAX_VALUES {
                let why = format!("the results of step {} have more than {MAX_VALUES} bytes", step.name);
                return Err(NoValues::Step(why));
            }
            results.push(value);
        }
    }
    Ok((results, bytes))
}

/// Reads the outputs of the workflows of at most `OUTCOMES` items, and their sizes: none for those that have not succeeded.
async fn outcomes(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
    items: Range<u32>,
) -> Result<Vec<Option<(Value, usize)>>, NoValues> {
    let ids: Vec<_> = items.map(|item| workflow.nested_id(step.index, step.round, item)).collect();
    let query = WorkflowQuery::Outcomes(workflow.namespace.clone(), ids.clone());
    let mut outcomes = store.reads().workflows(query).await?.outcomes.into_iter().peekable();
    let outcome = |id| {
        let is_meant = |(found, _): &(Workflow, _)| {
            found.state == State::Succeeded && found.is_step(workflow.key, step.index)
        };
        let (_, body) = outcomes.next_if(|(found, _)| found.id == id).filter(is_meant)?;
        let bytes = body.as_ref().map_or(0, Bytes::len);
        let outputs = body.map(|body| whole(serde_json::from_slice(&body).unwrap_or_default()));
        Some((outputs.unwrap_or_else(|| Value::Object(Map::new())), bytes))
    };
    Ok(ids.into_iter().map(outcome).collect())
}
