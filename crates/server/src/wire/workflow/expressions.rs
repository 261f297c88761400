//! Validation of expressions in place of fields of a step that are no texts.

use prost::Message;
use rota_expressions::References;
use rota_proto::expressions::{FIELDS, LIMITS};
use rota_proto::v1;
use rota_proto::v1::workflow_step::Kind;
use tonic::Status;

use super::expression;
use crate::wire::check;
use crate::wire::status::invalid;

const MAX: usize = 32;

/// Returns the number of the expressions of a step, which was checked before: they are not parsed again.
pub(super) fn count(step: &v1::WorkflowStep) -> usize {
    let begin = b"${{";
    let in_braces = step.encode_to_vec().windows(begin.len()).filter(|bytes| *bytes == begin).count();
    let for_each = step.for_each.iter().flat_map(|given| [&given.items, &given.max_parallel_expression]);
    let repeat = step.repeat.iter().flat_map(|given| [&given.until, &given.max_expression]);
    let fields = step.expressions.values().chain([&step.condition]).chain(for_each).chain(repeat);
    in_braces + fields.filter(|text| !text.is_empty() && !text.contains("${{")).count()
}

/// Checks the expressions of a step, and returns what they use: those of its compensation apart, which sees the step itself.
pub(super) fn check(field: &str, given: &v1::WorkflowStep) -> Result<(References, References), Status> {
    let (mut used, mut of_compensation) = (References::default(), References::default());
    let all = format!("{field}.expressions");
    check::count(&all, given.expressions.len(), MAX)?;
    for (path, text) in &given.expressions {
        let at = format!("{all}[{:?}]", check::shorten(path));
        let reads = expression(&at, text)?;
        if let Some((limits, name)) =
            LIMITS.iter().find_map(|all| Some((*all, path.strip_prefix(all)?.strip_prefix('.')?)))
        {
            let spec = match (&given.kind, limits) {
                (Some(Kind::Task(task)), "task.limits") => Some(&**task),
                (_, "compensate.limits") => given.compensate.as_deref(),
                _ => None,
            };
            let spec = spec.ok_or_else(|| invalid(&at, "is for a step that has such a task"))?;
            limit(&at, spec, name)?;
            let used = if limits == "task.limits" { &mut used } else { &mut of_compensation };
            used.merge(&reads);
            continue;
        }
        if !FIELDS.contains(&path.as_str()) {
            return Err(invalid(at, "is no field that may be an expression"));
        }
        let (has_field, is_set) = match (path.as_str(), &given.kind) {
            ("priority", _) => (true, given.priority.is_some()),
            ("timeout", _) => (true, given.timeout.is_some()),
            ("wait.duration", Some(Kind::Wait(wait))) => (true, wait.kind.is_some()),
            ("wait.timeout", Some(Kind::Wait(wait))) => (true, wait.timeout.is_some()),
            ("approval.deadline", Some(Kind::Approval(approval))) => (true, approval.deadline.is_some()),
            _ => (false, false),
        };
        if !has_field {
            return Err(invalid(at, "is for a step of another kind"));
        }
        if is_set {
            return Err(invalid(at, "must not be set together with the field in whose place it is"));
        }
        if reads.item || reads.round || reads.previous {
            return Err(invalid(at, "reads a value of an item or of a round, and is evaluated before them"));
        }
        used.merge(&reads);
    }
    Ok((used, of_compensation))
}

/// Checks that tasks have a limit of this name, which this one does not set.
fn limit(at: &str, task: &v1::TaskSpec, name: &str) -> Result<(), Status> {
    let value = if is_time(name) { serde_json::json!("1s") } else { serde_json::json!(1) };
    let known = serde_json::from_value::<v1::Limits>(serde_json::json!({ name: value })).ok();
    // The name of the field in proto would be another one for the same limit.
    let written = known.and_then(|limits| serde_json::to_value(limits).ok());
    if written.is_none_or(|limits| limits.get(name).is_none()) {
        return Err(invalid(at, "is no limit of a task"));
    }
    let set = task.limits.as_ref().and_then(|limits| serde_json::to_value(limits).ok()).unwrap_or_default();
    match set.get(name) {
        Some(_) => Err(invalid(at, "must not be set together with the field in whose place it is")),
        None => Ok(()),
    }
}

/// Whether a limit is a time: the others are whole numbers.
pub(crate) fn is_time(limit: &str) -> bool {
    limit.to_lowercase().ends_with("timeout") || limit == "cancelGrace"
}

#[cfg(test)]
mod tests {
    use rota_core::workflow::Workflow;
    use rota_core::{Namespace, WorkflowId};
    use serde_json::json;

    use super::super::check_added;
    use super::*;

    fn step(name: &str, prompt: String) -> v1::WorkflowStep {
        let task = json!({ "target": { "agent": "coder" }, "prompt": prompt });
        serde_json::from_value(json!({ "name": name, "task": task })).unwrap()
    }

    #[test]
    fn expressions_of_a_step_are_counted() {
        let given = json!({
            "name": "a", "condition": "inputs.x", "repeat": { "until": "${{ round > 1 }}", "max": 3 },
            "forEach": { "items": "inputs.list" }, "expressions": { "priority": "inputs.x" },
            "outputs": { "o": "${{ steps.a.result }} and ${{ round }}" },
            "task": { "prompt": "${{ item }}", "target": { "agent": "coder" } },
        });
        assert_eq!(count(&serde_json::from_value(given).unwrap()), 7);
        assert_eq!(count(&step("b", "none".to_owned())), 0);
    }

    #[test]
    fn added_steps_count_with_those_before() {
        let id = WorkflowId(uuid::Uuid::from_u128(1));
        let mut workflow = Workflow::new(id, Namespace::new("default").unwrap());
        workflow.main = 2;
        let spec = v1::WorkflowSpec::default();
        let add = |before: usize, added: usize| {
            let prompt = |number: usize| "${{ 1 }}".repeat(number);
            let steps = vec![step("a", prompt(before)), step("b", String::new())];
            check_added(&workflow, &spec, steps, step("c", prompt(added)))
        };
        assert!(add(19_990, 10).is_ok());
        let refused = add(19_990, 11).unwrap_err();
        assert!(refused.message().contains("more than 20000 expressions"), "{refused}");
    }
}
