//! The element of a fan-out that is compensated next, with the values that its compensation reads.

use rota_core::task;
use rota_core::workflow::{Kind, Step, Workflow};
use rota_expressions::Values;
use rota_store::WorkflowQuery;
use serde_json::Value;

use super::outcomes;
use super::values::{self, NoValues, failed};
use crate::store_client::StoreClient;
use crate::wire::workflow::MAX_VALUES;

pub(super) struct Element {
    pub(super) item: u32,
    value: Value,
    result: Value,
    bytes: usize,
}

impl Element {
    /// Returns the values with this element, whose result is that of its step.
    pub(super) fn values(self, step: &str, values: &Values) -> Result<Values, NoValues> {
        let mut steps = values.get("steps").and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(own) = steps.get_mut(step) {
            if self.bytes > MAX_VALUES {
                return Err(failed(format!("the result of step {step} has more than {MAX_VALUES} bytes")));
            }
            own["result"] = self.result;
        }
        Ok(values.clone().steps(steps).item(u64::from(self.item), self.value))
    }
}

/// Reads the last element that has succeeded, of those whose compensation was not created.
pub(super) async fn next(store: &StoreClient, workflow: &Workflow, step: &Step) -> Result<Element, NoValues> {
    let found = match step.kind {
        Kind::Workflow => last_workflow(store, workflow, step).await?,
        _ => last_task(store, workflow, step).await?,
    };
    let (item, result, bytes) = found.ok_or_else(|| failed("an element that has succeeded was not found"))?;
    let items = values::items(store, step, item).await?;
    let value = items.and_then(|items| items.into_iter().next());
    let value = value.ok_or_else(|| failed(format!("element {item} was not found")))?;
    Ok(Element { item, value, result, bytes })
}

async fn last_workflow(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
) -> Result<Option<(u32, Value, usize)>, NoValues> {
    for item in (0..step.compensable_end()).rev() {
        if let Some((result, bytes)) = outcomes::result(store, workflow, step, item).await? {
            return Ok(Some((item, result, bytes)));
        }
    }
    Ok(None)
}

/// Finds the last task that has succeeded: most often the last one of all, and otherwise page by page from the end.
async fn last_task(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
) -> Result<Option<(u32, Value, usize)>, NoValues> {
    let (mut end, mut size) = (step.compensable_end(), 1);
    while end > 0 {
        let begin = end.saturating_sub(size);
        let (mut from, mut last) = (begin, None);
        // A read ends earlier if the results are large.
        while from < end {
            let query = WorkflowQuery::Tasks {
                workflow: workflow.key,
                step: step.index,
                round: step.round,
                from,
                limit: (end - from) as usize,
                bytes: MAX_VALUES,
            };
            let mut next = end;
            for (task, payload) in store.reads().workflows(query).await?.tasks {
                let Some(item) = task.step.as_ref().map(|place| place.item).filter(|item| *item < end) else {
                    break;
                };
                next = item + 1;
                if task.state == task::State::Succeeded {
                    last = Some((item, payload));
                }
            }
            // Every further one is there, too, unless this was the last one.
            from = if next > from { next } else { end };
        }
        if let Some((item, payload)) = last {
            let bytes = payload.as_ref().map_or(0, bytes::Bytes::len);
            return Ok(Some((item, payload.as_ref().map_or(Value::Null, values::of_result), bytes)));
        }
        (end, size) = (begin, u32::try_from(values::ITEMS).unwrap_or(u32::MAX));
    }
    Ok(None)
}
