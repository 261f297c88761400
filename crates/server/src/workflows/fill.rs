//! Specs of the tasks of a step, with the results of its expressions, and with the files that these name.

use std::collections::{BTreeMap, BTreeSet};

use rota_expressions::{Expression, Values};
use rota_proto::v1;
use serde_json::Value;

use super::evaluate::failed;
use super::values::{NoFill, NoValues};
use crate::wire::workflow::{Files, all_agents, distinct};

/// Task of a step, or its compensation.
pub(super) struct TaskTemplate<'a> {
    task: &'a v1::TaskSpec,
    /// Files that each of its tasks is given.
    files: Vec<v1::Artifact>,
}

impl<'a> TaskTemplate<'a> {
    /// Takes a task with those of the files of the workflow that it names, or the list of its items does.
    pub(super) fn new(
        task: &'a v1::TaskSpec,
        for_each: Option<&v1::ForEach>,
        files: &Files,
    ) -> Result<Self, NoValues> {
        if files.is_empty() {
            return Ok(Self { task, files: Vec::new() });
        }
        let mut inputs = references(task)?.inputs;
        if let Some(each) = for_each {
            let items = Expression::parse(&each.items).map_err(failed)?;
            inputs.extend(items.references().inputs.iter().cloned());
        }
        let named = files.iter().filter(|(name, _)| inputs.contains(*name)).map(|(_, file)| file);
        Ok(Self { task, files: distinct(named) })
    }

    /// Returns the spec of a task with the results of its expressions, and one agent if each of several has a task.
    pub(super) fn fill(&self, values: &Values) -> Result<v1::TaskSpec, NoFill> {
        let mut filled = fill_texts(self.task, values)?;
        filled.inputs.clone_from(&self.files);
        let index = values.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        if let Some(agent) = all_agents(&filled).zip(index).and_then(|(agents, index)| agents.get(index)) {
            filled.target = Some(v1::Target { kind: Some(v1::target::Kind::Agent(agent.clone())) });
        }
        Ok(filled)
    }

    /// Returns the steps that its expressions read, of those that the step does.
    pub(super) fn reads(&self, seen: &BTreeMap<String, u32>) -> Result<BTreeMap<String, u32>, NoValues> {
        let steps: BTreeSet<_> = references(self.task)?.steps;
        let is_used = |(name, _): &(&String, &u32)| steps.contains(*name);
        Ok(seen.iter().filter(is_used).map(|(name, at)| (name.clone(), *at)).collect())
    }
}

fn references(task: &v1::TaskSpec) -> Result<rota_expressions::References, NoValues> {
    let json = serde_json::to_value(task).map_err(failed)?;
    rota_expressions::references(&json).map_err(failed)
}

/// Returns the spec of a task with the results of its expressions. Only in `input` they keep their types.
fn fill_texts(task: &v1::TaskSpec, values: &Values) -> Result<v1::TaskSpec, NoFill> {
    let mut json = serde_json::to_value(task)?;
    if !json.to_string().contains("${{") {
        return Ok(task.clone());
    }
    let input = json.as_object_mut().and_then(|fields| fields.remove("input"));
    let mut filled = rota_expressions::fill_text(&json, values)?;
    if let (Some(input), Some(fields)) = (input, filled.as_object_mut()) {
        fields.insert("input".to_owned(), rota_expressions::fill(&input, values)?);
    }
    Ok(serde_json::from_value(filled)?)
}
