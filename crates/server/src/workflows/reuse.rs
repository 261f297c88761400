//! Steps of a rerun that need not run: what a step was started with, and the results of an earlier run that was started with
//! the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use rota_core::task::Task;
use rota_core::workflow::{Kind, MAX_REUSED_LISTS, Step, StepState, Workflow};
use rota_expressions::{Expression, Template, Values};
use rota_proto::v1::{self, ArtifactList};
use rota_store::{Action, WorkflowQuery, reused_item, reused_lists};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::next::Next;
use super::values::{self, NoValues, failed, not_now};
use crate::artifacts;
use crate::creation::{Creator, Kept};
use crate::store_client::StoreClient;
use crate::wire::workflow::MAX_VALUES;

/// Lists of files that are read together, of at most 512 KiB each.
const LISTS: usize = 8;

/// Returns a digest of what a step is started with: its tasks as they are created, with what their kinds preset, or the question that
/// it asks, or its workflows with their inputs, which are `nested`. Without the specs of all tasks, which a large fan-out makes in pieces, it covers all that the step may read.
pub(super) fn digest(
    spec: &v1::WorkflowStep,
    prompt: &str,
    items: Option<&[Value]>,
    specs: Option<&[v1::TaskSpec]>,
    kinds: &BTreeMap<String, v1::TaskKindSpec>,
    nested: &Value,
    values: &Values,
) -> Result<String, NoValues> {
    use v1::workflow_step::Kind as Given;
    let mut content = match &spec.kind {
        Some(Given::Task(task)) => {
            let own = json(task)?;
            // Without expressions, a task is created as it is.
            let created = |one: &v1::TaskSpec| if *one == **task { Ok(own.clone()) } else { json(one) };
            let filled = match specs {
                Some(specs) => specs.iter().map(created).collect::<Result<_, _>>()?,
                None => {
                    let mut read =
                        vec![json!(values.get("inputs")), json!(values.get("steps").map(without_messages))];
                    read.extend(values.get("workflow").filter(|_| reads_workflow(task)).cloned());
                    vec![Value::from(read)]
                }
            };
            let repeat = json(&spec.repeat)?;
            let parts =
                [("task", own), ("filled", Value::from(filled)), ("items", json!(items)), ("repeat", repeat)];
            Value::from_iter(parts)
        }
        Some(Given::Workflow(given)) => {
            json!({ "workflow": json(given)?, "filled": nested, "items": items, "repeat": json(&spec.repeat)? })
        }
        Some(Given::Merge(given)) => json!({ "merge": json(given)?, "filled": nested }),
        Some(Given::Approval(_)) => json!({ "prompt": prompt }),
        Some(Given::Wait(wait)) => json!({ "wait": json(wait)? }),
        None => Value::Null,
    };
    // Those of earlier runs have none.
    if !kinds.is_empty() {
        content["kinds"] = json(kinds)?;
    }
    // `Struct` has its fields in a random order.
    content.sort_all_objects();
    Ok(hex(&content))
}

fn hex(content: &Value) -> String {
    hex::encode(Sha256::digest(content.to_string()))
}

/// Whether a task has other expressions in each run.
fn reads_workflow(task: &v1::TaskSpec) -> bool {
    let references =
        serde_json::to_value(task).ok().and_then(|json| rota_expressions::references(&json).ok());
    references.is_none_or(|used| used.workflow)
}

/// Returns steps without their messages: that of a reused step differs from that of one that has run.
fn without_messages(steps: &Value) -> Value {
    let mut steps = steps.clone();
    for step in steps.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        step.as_object_mut().map(|fields| fields.remove("message"));
    }
    steps
}

/// Whether a step whose last round had these results ends with them in this workflow, too.
fn ends(spec: &v1::WorkflowStep, found: &Step, results: &[Value], values: &Values) -> bool {
    let Some(repeat) = &spec.repeat else { return true };
    let Ok(until) = Expression::parse(&repeat.until) else { return false };
    // The results of earlier rounds are not copied.
    let reads_previous =
        |text: &String| Template::parse(text).is_ok_and(|template| template.references().previous);
    if until.references().previous || spec.outputs.values().any(reads_previous) {
        return false;
    }
    let mut steps = values.get("steps").and_then(Value::as_object).cloned().unwrap_or_default();
    steps.insert(found.name.clone(), values::ending(found.round, results));
    let values = values.clone().round(u64::from(found.round)).steps(steps);
    until.evaluate_bool(&values).unwrap_or(false)
}

fn json(message: &impl serde::Serialize) -> Result<Value, NoValues> {
    serde_json::to_value(message).map_err(failed)
}

/// Returns the workflow of which this one is a rerun, and its step that was started with the same inputs, if results of it may be taken over.
pub(super) async fn earlier_step(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
    inputs: &str,
) -> Result<Option<(Workflow, Step)>, NoValues> {
    let may_reuse = step.may_reuse && step.round <= 1 && !step.compensates && !inputs.is_empty();
    let Some(id) = workflow.rerun_of.filter(|_| may_reuse) else { return Ok(None) };
    let earlier = store.reads().workflows(WorkflowQuery::Id((workflow.namespace.clone(), id))).await?;
    let Some(earlier) = earlier.workflows.into_iter().find(|earlier| !earlier.deleted) else {
        return Ok(None);
    };
    // Steps that were added to the earlier one are among the others here.
    let query = WorkflowQuery::StepsAt(earlier.key, vec![earlier.index_of(step.index)]);
    let steps = store.reads().workflows(query).await?.steps;
    let found = steps.into_iter().find(|found| found.name == step.name && found.inputs == inputs);
    Ok(found.map(|found| (earlier, found)))
}

/// Returns the end of a step with the results of its [`earlier_step`], if it may have them.
pub(super) async fn find(
    creator: &Creator,
    workflow: &Workflow,
    step: &Step,
    spec: &v1::WorkflowStep,
    values: &Values,
    needs: &[u32],
    (earlier, found): &(Workflow, Step),
) -> Result<Option<Next>, NoValues> {
    let store = &creator.store;
    // With fewer rounds it would have failed.
    if found.state != StepState::Succeeded || found.round > step.max_rounds.max(step.max_attempts) {
        return Ok(None);
    }
    if found.kind == Kind::Task && !left_the_same(store, workflow, earlier, needs).await? {
        return Ok(None);
    }
    let results = match found.kind {
        Kind::Task | Kind::Workflow => match values::results(store, earlier, found).await {
            Ok(results) if !ends(spec, found, &results, values) => return Ok(None),
            Ok(results) => match Value::Array(results).to_string() {
                text if text.len() > MAX_VALUES => return Ok(None),
                text => Some(text.into_bytes().into()),
            },
            // What expressions cannot read is not copied, either.
            Err(NoValues::Step(_)) => return Ok(None),
            Err(other) => return Err(other),
        },
        _ => {
            let query = WorkflowQuery::Outputs(earlier.key, vec![found.index]);
            store.reads().workflows(query).await?.bodies.into_iter().next().map(|(_, body)| body)
        }
    };
    let files = match files(creator, workflow, earlier, found).await {
        Ok(Some(files)) => files,
        Ok(None) | Err(NoValues::Step(_)) => return Ok(None),
        Err(other) => return Err(other),
    };
    // What was read is complete, unless its removal has begun meanwhile.
    let again = store.reads().workflows(WorkflowQuery::Key(earlier.key)).await?.workflows;
    if again.iter().all(|earlier| earlier.deleted) {
        return Ok(None);
    }
    let (round, total, inputs, lists) = (found.round, found.total, found.inputs.clone(), files.lists);
    Ok(Some(Next { action: Action::Reuse { round, total, inputs, results, lists }, kept: files.kept }))
}

/// Files that are taken over: their lists, by item, and what keeps the contents until the lists are committed.
#[derive(Default)]
struct Files {
    lists: Vec<(u32, Bytes)>,
    kept: Vec<Kept>,
    bytes: usize,
    /// Contents that must be stored.
    parts: Vec<rota_artifacts::Digest>,
}

impl Files {
    /// Counts the bytes of a list. Returns whether it fits, with those of this step and those that the workflow has taken over before.
    fn has_room(&mut self, bytes: usize, before: u32) -> bool {
        self.bytes += bytes;
        self.bytes <= MAX_REUSED_LISTS.saturating_sub(before) as usize
    }

    /// Adds a list. Returns whether there is room for it.
    fn add(&mut self, workflow: &Workflow, item: u32, list: &ArtifactList) -> bool {
        if list.artifacts.is_empty() {
            return true;
        }
        let encoded = Bytes::from(list.encode_to_vec());
        if !self.has_room(encoded.len(), workflow.reused_lists) {
            return false;
        }
        self.parts.extend(artifacts::digests(&list.artifacts));
        self.lists.push((item, encoded));
        true
    }

    /// Looks whether the contents of all lists are stored, and keeps them: in one look, so that a late answer is there when the step is
    /// evaluated again. None if some are not.
    async fn stored(mut self, creator: &Creator, workflow: &Workflow) -> Result<Option<Self>, NoValues> {
        if self.parts.is_empty() {
            return Ok(Some(self));
        }
        let mut parts = std::mem::take(&mut self.parts);
        parts.sort_unstable();
        parts.dedup();
        let looked = creator.step_files.missing_now(&creator.artifacts, &workflow.namespace, parts).await;
        let (missing, pin) = looked.map_err(not_now)?;
        self.kept.push(Kept::files(pin));
        Ok(missing.is_empty().then_some(self))
    }
}

/// Returns the files that the tasks of a step have left in an earlier run. None if they cannot be taken over.
async fn files(
    creator: &Creator,
    workflow: &Workflow,
    earlier: &Workflow,
    found: &Step,
) -> Result<Option<Files>, NoValues> {
    let (store, mut files) = (&creator.store, Files::default());
    if found.kind != Kind::Task {
        return Ok(Some(files));
    }
    if !found.reused {
        for (task, _) in last_tasks(store, earlier, found).await? {
            let item = task.step.as_ref().map_or(0, |place| place.item);
            let list = artifacts::left_by(store, &task).await.map_err(not_now)?;
            if !files.add(workflow, item, &list.unwrap_or_default()) {
                return Ok(None);
            }
        }
        return files.stored(creator, workflow).await;
    }
    let mut from = Some(0);
    while let Some(first) = from {
        let keys = reused_lists((earlier.key, found.index), first);
        let rows = store.reads().artifacts(keys, LISTS).await?;
        from = rows.last().filter(|_| rows.len() == LISTS).map(|(key, _)| reused_item(*key) + 1);
        for row in &rows {
            let list = artifacts::decode(row).map_err(failed)?;
            if !files.add(workflow, reused_item(row.0), &list) {
                return Ok(None);
            }
        }
    }
    files.stored(creator, workflow).await
}

/// Whether the steps that a step needs have left to its tasks, in files, what they have in an earlier run.
async fn left_the_same(
    store: &StoreClient,
    workflow: &Workflow,
    earlier: &Workflow,
    needs: &[u32],
) -> Result<bool, NoValues> {
    for index in needs {
        let before_at = earlier.index_of(*index);
        let of = async |workflow: &Workflow, index: u32| -> Result<_, NoValues> {
            let query = WorkflowQuery::StepsAt(workflow.key, vec![index]);
            Ok(store.reads().workflows(query).await?.steps.into_iter().next())
        };
        let Some(now) = of(workflow, *index).await? else { return Ok(false) };
        if now.reused {
            continue;
        }
        let Some(before) = of(earlier, before_at).await? else { return Ok(false) };
        let unlike = workflow.state_of(&now) != earlier.state_of(&before) || now.name != before.name;
        let has_files = async || -> Result<bool, NoValues> {
            Ok(has_artifacts(store, workflow, &now).await? || has_artifacts(store, earlier, &before).await?)
        };
        if unlike || now.kind == Kind::Task && has_files().await? {
            return Ok(false);
        }
        let same = match now.kind {
            Kind::Task | Kind::Workflow => {
                let results = values::results(store, workflow, &now).await;
                match (results, values::results(store, earlier, &before).await) {
                    (Ok(now), Ok(before)) => now == before,
                    (Err(NoValues::Step(_)), _) | (_, Err(NoValues::Step(_))) => false,
                    (Err(error), _) | (_, Err(error)) => return Err(error),
                }
            }
            _ => {
                let row = async |workflow: &Workflow, index: u32| -> Result<_, NoValues> {
                    let query = WorkflowQuery::Outputs(workflow.key, vec![index]);
                    let bodies = store.reads().workflows(query).await?.bodies;
                    Ok(bodies.into_iter().map(|(_, body)| body).next())
                };
                row(workflow, *index).await? == row(earlier, before_at).await?
            }
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a task of a step's last round has left files. A step whose results are too large to be read is taken for one.
async fn has_artifacts(store: &StoreClient, workflow: &Workflow, step: &Step) -> Result<bool, NoValues> {
    let tasks = last_tasks(store, workflow, step).await?;
    // Tasks of a reused step are those of another workflow.
    Ok(tasks.len() < step.created as usize || tasks.iter().any(|(task, _)| task.has_artifacts))
}

/// Reads the tasks of a step's last round, unless their results are too large.
async fn last_tasks(
    store: &StoreClient,
    workflow: &Workflow,
    step: &Step,
) -> Result<Vec<(Task, Option<Bytes>)>, NoValues> {
    let query = WorkflowQuery::Tasks {
        workflow: workflow.key,
        step: step.index,
        round: step.round,
        from: 0,
        limit: step.created as usize,
        bytes: MAX_VALUES,
    };
    Ok(store.reads().workflows(query).await?.tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_files_are_bounded_over_all_steps() {
        let mut files = Files::default();
        assert!(files.has_room(5 << 20, 1 << 20) && files.has_room(2 << 20, 1 << 20));
        assert!(!files.has_room(1, 1 << 20));
        assert!(!Files::default().has_room(1, 8 << 20));
    }

    #[test]
    fn digests_of_earlier_runs_stay_equal() {
        let step = |prompt: &str| -> v1::WorkflowStep {
            serde_json::from_value(json!({ "name": "a", "task": { "prompt": prompt } })).unwrap()
        };
        let values = Values::default().inputs(json!({ "b": 1 })).workflow(json!({ "id": "w" }));
        let of = |prompt: &str, kinds: &BTreeMap<_, _>| {
            digest(&step(prompt), "", None, None, kinds, &Value::Null, &values).ok().unwrap()
        };
        let expected = |prompt: &str, read: Value, kinds: Option<Value>| {
            let mut content =
                json!({ "task": { "prompt": prompt }, "filled": [read], "items": null, "repeat": null });
            if let Some(kinds) = kinds {
                content["kinds"] = kinds;
            }
            content.sort_all_objects();
            hex(&content)
        };
        let (plain, own) = ("${{ inputs.b }}", "${{ workflow.id }}");
        let none = BTreeMap::new();
        assert_eq!(of(plain, &none), expected(plain, json!([{ "b": 1 }, null]), None));
        assert_eq!(of(own, &none), expected(own, json!([{ "b": 1 }, null, { "id": "w" }]), None));
        let spec = v1::TaskKindSpec { frame: "f".to_owned(), ..Default::default() };
        let kinds = BTreeMap::from([("k".to_owned(), spec)]);
        let preset = Some(json!({ "k": { "frame": "f" } }));
        assert_eq!(of(plain, &kinds), expected(plain, json!([{ "b": 1 }, null]), preset));
    }
}
