//! Results of the steps that the step of an attempt needs, on request of the worker that runs it. In pages by bytes: a step may
//! have thousands of tasks.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use prost::Message;
use rota_core::task::Task;
use rota_core::workflow::{COMPENSATION, Kind, Step, Workflow};
use rota_proto::worker::v1::{FetchStepResultsRequest, FetchStepResultsResponse, StepResult};
use rota_proto::{num, v1};
use rota_store::{
    ArtifactsRow, StepKey, WorkflowQuery, WorkflowRows, reused_item, reused_lists, reused_results,
};
use serde_json::Value;
use tonic::Status;

use super::deps::SessionDeps;
use super::running::{self, Named, absent};
use crate::artifacts;
use crate::store_client::StoreClient;
use crate::trust::identity::Identity;
use crate::wire::event;
use crate::wire::status::{error, invalid, store as unavailable};
use crate::wire::workflow::{StoredStep, step_state};
use crate::workflows;

/// Bytes of the results of a page, and one result more.
const MAX_PAGE: usize = 1 << 20;
/// Number of tasks in a page.
const MAX_TASKS: usize = 256;
/// Lists of files that are read together, of at most 512 KiB each.
const LISTS: usize = 8;

/// Place in the results: a step among those that are needed, and a task of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct From {
    step: usize,
    item: u32,
}

impl From {
    fn parse(token: &str) -> Option<Self> {
        if token.is_empty() {
            return Some(Self::default());
        }
        let (step, item) = token.split_once('.')?;
        Some(Self { step: step.parse().ok()?, item: item.parse().ok()? })
    }

    fn token(self) -> String {
        format!("{}.{}", self.step, self.item)
    }
}

pub(super) async fn get(
    deps: &SessionDeps,
    holder: Option<&Identity>,
    request: &FetchStepResultsRequest,
) -> Result<FetchStepResultsResponse, Status> {
    let named = Named {
        namespace: &request.namespace,
        worker: &request.worker,
        task_id: &request.task_id,
        fence: request.fence,
    };
    let follows = |task: &Task| task.step.as_ref().is_some_and(|place| place.follows);
    let task = running::task(deps, holder, named, follows).await?;
    let place = task.step.as_deref().ok_or_else(absent)?;
    let from = From::parse(&request.page_token)
        .ok_or_else(|| invalid("page_token", "is not of an earlier response"))?;
    let store = &deps.store;
    let rows = query(store, WorkflowQuery::Work(place.workflow, vec![place.step])).await?;
    let workflow = rows.workflows.first().ok_or_else(absent)?;
    let spec = rows.bodies.into_iter().next().map(|(_, body)| body).unwrap_or_default();
    let mut needed = StoredStep::decode(spec)
        .map_err(|_| error("STORE_CORRUPT", "the spec of the step cannot be decoded"))?
        .needs;
    if place.round == COMPENSATION {
        needed.push(place.step);
    }
    let mut page = Page { store, workflow, results: Vec::new(), left: MAX_PAGE };
    let mut first = from.item;
    for (at, index) in needed.iter().enumerate().skip(from.step) {
        let steps = query(store, WorkflowQuery::StepsAt(workflow.key, vec![*index])).await?.steps;
        let Some(step) = steps.first() else { continue };
        let from = std::mem::take(&mut first);
        // The compensation of an element is given what that has done.
        let items = match place.round == COMPENSATION && *index == place.step && step.compensates_each {
            true => place.item..place.item.saturating_add(1),
            false => from..u32::MAX,
        };
        if let Some(item) = page.add(step, items).await? {
            let next_page_token = From { step: at, item }.token();
            return Ok(FetchStepResultsResponse { results: page.results, next_page_token });
        }
    }
    Ok(FetchStepResultsResponse { results: page.results, next_page_token: String::new() })
}

async fn query(store: &StoreClient, query: WorkflowQuery) -> Result<WorkflowRows, Status> {
    store.reads().workflows(query).await.map_err(unavailable)
}

struct Page<'a> {
    store: &'a StoreClient,
    workflow: &'a Workflow,
    results: Vec<StepResult>,
    left: usize,
}

impl Page<'_> {
    /// Adds the results of a step for these items. Returns the item with which the next page begins, if there is no room for all.
    async fn add(&mut self, step: &Step, items: Range<u32>) -> Result<Option<u32>, Status> {
        if self.is_full() {
            return Ok(Some(items.start));
        }
        let of_step = StepResult {
            step: step.name.clone(),
            state: step_state(self.workflow.state_of(step)).into(),
            message: step.message.clone(),
            ..StepResult::default()
        };
        if step.kind == Kind::Task && step.created > 0 && !step.reused {
            return self.add_tasks(step, &of_step, items).await;
        }
        let values = match step.kind.is_created() {
            true if step.reused => match self.outputs(reused_results(step.index)).await? {
                Some(Value::Array(values)) => values,
                _ => Vec::new(),
            },
            true if step.kind == Kind::Workflow => {
                workflows::nested_results(self.store, self.workflow, step).await?
            }
            // A step without tasks, such as one that was skipped.
            true => Vec::new(),
            false => self.outputs(step.index).await?.into_iter().collect(),
        };
        if values.is_empty() {
            self.push(of_step);
            return Ok(None);
        }
        let mut lists = ReusedLists { step: (self.workflow.key, step.index), ..ReusedLists::default() };
        let of_list = step.kind.is_created() && self.is_list(step).await?;
        for (item, value) in (0..).zip(values).filter(|(item, _)| items.contains(item)) {
            if self.is_full() {
                return Ok(Some(item));
            }
            // Those of a task that ran in an earlier run.
            let artifacts = if step.reused { lists.take(self.store, item).await? } else { None };
            self.push(StepResult {
                item: num::to_i32(item),
                result: Some(of_value(value)),
                artifacts,
                of_list,
                ..of_step.clone()
            });
        }
        Ok(None)
    }

    /// Whether a step is a fan-out, also of a list with one element.
    async fn is_list(&self, step: &Step) -> Result<bool, Status> {
        let spec = WorkflowQuery::StepSpecs { workflow: self.workflow.key, from: step.index, limit: 1 };
        let spec = query(self.store, spec).await?.bodies.into_iter().next();
        let spec = spec.and_then(|(_, body)| StoredStep::decode(body).ok()?.step);
        Ok(step.total > 1 || spec.is_some_and(|spec| spec.for_each.is_some()))
    }

    fn is_full(&self) -> bool {
        self.left == 0 || self.results.len() >= MAX_TASKS
    }

    /// Reads the outputs of a step, or its results that were taken over.
    async fn outputs(&self, row: u32) -> Result<Option<Value>, Status> {
        let rows = query(self.store, WorkflowQuery::Outputs(self.workflow.key, vec![row])).await?;
        let body = rows.bodies.into_iter().next().map(|(_, body)| body);
        Ok(body.and_then(|body| serde_json::from_slice(&body).ok()))
    }

    async fn add_tasks(
        &mut self,
        step: &Step,
        of_step: &StepResult,
        items: Range<u32>,
    ) -> Result<Option<u32>, Status> {
        let from = items.start;
        let limit = MAX_TASKS.saturating_sub(self.results.len()).min(items.len());
        let rows = WorkflowQuery::Tasks {
            workflow: self.workflow.key,
            step: step.index,
            round: step.round,
            from,
            limit,
            bytes: self.left,
        };
        let mut next = from;
        let of_list = self.is_list(step).await?;
        for (task, body) in query(self.store, rows).await?.tasks {
            if self.left == 0 {
                return Ok(Some(next));
            }
            let item = task.step.as_ref().map_or(next, |place| place.item);
            next = item + 1;
            let result = body.map(v1::TaskResult::decode).transpose();
            let result =
                result.map_err(|_| error("STORE_CORRUPT", "the result of a task cannot be decoded"))?;
            let artifacts = artifacts::left_by(self.store, &task).await?;
            self.push(StepResult {
                item: num::to_i32(item),
                task_id: task.id.to_string(),
                task_state: event::state(task.state).into(),
                result,
                artifacts,
                of_list,
                ..of_step.clone()
            });
        }
        Ok(Some(next).filter(|next| *next < step.created.min(items.end) && *next > from))
    }

    fn push(&mut self, result: StepResult) {
        self.left = self.left.saturating_sub(result.encoded_len());
        self.results.push(result);
    }
}

/// Lists of files that a step has taken over, read in the order of its items.
#[derive(Default)]
struct ReusedLists {
    step: StepKey,
    read: VecDeque<ArtifactsRow>,
    /// Whether there is none behind those that were read.
    is_over: bool,
}

impl ReusedLists {
    /// Returns the list of an item, after those of the items before it.
    async fn take(&mut self, store: &StoreClient, item: u32) -> Result<Option<v1::ArtifactList>, Status> {
        loop {
            let Some((key, _)) = self.read.front() else {
                if self.is_over {
                    return Ok(None);
                }
                let lists = store.reads().artifacts(reused_lists(self.step, item), LISTS).await;
                self.read = lists.map_err(unavailable)?.into();
                self.is_over = self.read.len() < LISTS;
                continue;
            };
            match reused_item(*key).cmp(&item) {
                Ordering::Greater => return Ok(None),
                Ordering::Equal => {
                    let list = self.read.pop_front().map(|row| artifacts::decode(&row)).transpose();
                    return list.map_err(|reason| error("STORE_CORRUPT", reason));
                }
                Ordering::Less => drop(self.read.pop_front()),
            }
        }
    }
}

/// Returns a value that expressions read as a result.
fn of_value(value: Value) -> v1::TaskResult {
    let mut fields = match value {
        Value::Object(fields) => fields,
        other => serde_json::Map::from_iter([("value".to_owned(), other)]),
    };
    let text = match fields.remove("text") {
        Some(Value::String(text)) => text,
        Some(other) => {
            fields.insert("text".to_owned(), other);
            String::new()
        }
        None => String::new(),
    };
    let fields: BTreeMap<_, _> = fields.into_iter().collect();
    let data = (!fields.is_empty()).then(|| serde_json::from_value(serde_json::json!(fields)).ok()).flatten();
    v1::TaskResult { text, data, ..v1::TaskResult::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_name_a_place() {
        let place = From { step: 3, item: 4096 };
        assert_eq!(From::parse(&place.token()), Some(place));
        assert_eq!(From::parse(""), Some(From::default()));
        for foreign in ["3", "a.b", "1.-1", "."] {
            assert_eq!(From::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn values_become_results() {
        let of = |value| {
            let result = of_value(value);
            (result.text, result.data.map(|data| serde_json::to_value(data).unwrap()))
        };
        assert_eq!(of(json!({"text": "a"})), ("a".to_owned(), None));
        assert_eq!(of(json!({"text": "a", "n": 1.0})), ("a".to_owned(), Some(json!({"n": 1.0}))));
        assert_eq!(of(json!({"approved": true})), (String::new(), Some(json!({"approved": true}))));
        assert_eq!(of(json!(null)), (String::new(), Some(json!({"value": null}))));
    }
}
