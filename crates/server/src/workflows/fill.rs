//! Specs of the tasks of a step, with the results of its expressions, and with the files that these name.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use rota_expressions::{Expression, Values};
use rota_proto::v1;
use serde_json::Value;

use super::typed::Limits;
use super::values::{NoFill, NoValues, failed};
use crate::wire::workflow::{Files, all_agents, distinct};

/// Bytes of the specs of tasks that one command creates.
const MAX_SPECS: usize = 4 << 20;

/// Task of a step, or its compensation.
pub(super) struct TaskTemplate<'a> {
    task: &'a v1::TaskSpec,
    /// Files that each of its tasks is given.
    files: Vec<v1::Artifact>,
    limits: Limits,
    /// Steps that its limits and its priority read.
    typed: BTreeSet<String>,
}

impl<'a> TaskTemplate<'a> {
    /// Takes the task of a step, or its compensation, with those of the files of the workflow that it names, or the list of its items does.
    pub(super) fn new(
        spec: &v1::WorkflowStep,
        task: &'a v1::TaskSpec,
        limits: &str,
        files: &Files,
    ) -> Result<Self, NoValues> {
        let (limits, used) = Limits::of(spec, limits)?;
        let typed = used.steps;
        if files.is_empty() {
            return Ok(Self { task, files: Vec::new(), limits, typed });
        }
        let mut inputs = references(task)?.inputs;
        if let Some(each) = &spec.for_each {
            let items = Expression::parse(&each.items).map_err(failed)?;
            inputs.extend(items.references().inputs.iter().cloned());
        }
        let named = files.iter().filter(|(name, _)| inputs.contains(*name)).map(|(_, file)| file);
        Ok(Self { task, files: distinct(named), limits, typed })
    }

    /// Returns the spec of a task with the results of its expressions, and one agent if each of several has a task.
    pub(super) fn fill(&self, values: &Values) -> Result<v1::TaskSpec, NoFill> {
        let mut filled = self.fill_texts(values)?;
        filled.inputs.clone_from(&self.files);
        let index = values.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        if let Some(agent) = all_agents(&filled).zip(index).and_then(|(agents, index)| agents.get(index)) {
            filled.target = Some(v1::Target { kind: Some(v1::target::Kind::Agent(agent.clone())) });
        }
        Ok(filled)
    }

    /// Returns the spec with the results of its expressions. Only in `input` and limits they keep their types.
    fn fill_texts(&self, values: &Values) -> Result<v1::TaskSpec, NoFill> {
        // Texts are in the encoding as they are in JSON.
        if self.limits.is_empty() && !begins_expression(&self.task.encode_to_vec()) {
            return Ok(self.task.clone());
        }
        let mut json = serde_json::to_value(self.task)?;
        let input = json.as_object_mut().and_then(|fields| fields.remove("input"));
        let mut filled = rota_expressions::fill_text(&json, values)?;
        if let (Some(input), Some(fields)) = (input, filled.as_object_mut()) {
            fields.insert("input".to_owned(), rota_expressions::fill(&input, values)?);
        }
        self.limits.fill(&mut filled, values)?;
        Ok(serde_json::from_value(filled)?)
    }

    /// Returns the steps that its expressions read, of those that the step does.
    pub(super) fn reads(&self, seen: &BTreeMap<String, u32>) -> Result<BTreeMap<String, u32>, NoValues> {
        let mut steps: BTreeSet<_> = references(self.task)?.steps;
        steps.extend(self.typed.iter().cloned());
        let is_used = |(name, _): &(&String, &u32)| steps.contains(*name);
        Ok(seen.iter().filter(is_used).map(|(name, at)| (name.clone(), *at)).collect())
    }
}

/// Whether an expression begins in a text.
fn begins_expression(text: &[u8]) -> bool {
    text.windows(3).any(|bytes| bytes == b"${{")
}

fn references(task: &v1::TaskSpec) -> Result<rota_expressions::References, NoValues> {
    let json = serde_json::to_value(task).map_err(failed)?;
    rota_expressions::references(&json).map_err(failed)
}

/// Returns the specs of the next tasks of a round, for the items of a fan-out from there on: at least one, and fewer than there
/// may be if they are large or need much work. Further commands create the rest.
pub(super) fn fill_next<T: Message>(
    fill: impl Fn(&Values) -> Result<T, NoFill>,
    values: &Values,
    from: u32,
    most: u32,
    items: Option<&[Value]>,
) -> Result<Vec<T>, NoValues> {
    let (mut specs, mut bytes, reserve) = (Vec::new(), 0, values.left() / 2);
    // Other tasks than those of a fan-out see the same values.
    let mut of_item = items.map(|_| values.clone());
    let count = items.map_or(most as usize, |items| items.len().min(most as usize));
    for (index, place) in (from..).zip(0..count) {
        if !specs.is_empty() && (bytes > MAX_SPECS || values.left() < reserve) {
            break;
        }
        if let Some(of_item) = &mut of_item
            && let Some(value) = items.and_then(|items| items.get(place))
        {
            *of_item = std::mem::take(of_item).item(u64::from(index), value.clone());
        }
        let spec = match fill(of_item.as_ref().unwrap_or(values)) {
            // The next command has a budget of its own.
            Err(NoFill::Spent(_)) if !specs.is_empty() => break,
            filled => filled?,
        };
        bytes += spec.encoded_len();
        specs.push(spec);
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_found_in_encodings() {
        for (prompt, expected) in [
            ("a ${{ b }}", true),
            ("$${{ b }}", true),
            ("${ { b } }", false),
            ("costs $", false),
            ("", false),
        ] {
            let task = v1::TaskSpec { prompt: prompt.to_owned(), ..v1::TaskSpec::default() };
            assert_eq!(begins_expression(&task.encode_to_vec()), expected, "{prompt}");
        }
    }
}
