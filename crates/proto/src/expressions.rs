//! Expressions in place of fields of a step that are no texts: `wait: {duration: "${{ inputs.delay }}"}`. Messages have them in a map by the
//! path of the field; files and requests in JSON may have them where the field is.

use serde_json::{Map, Value};

/// Fields of a step that may be expressions, besides the limits of its task and of its compensation.
pub const FIELDS: [&str; 5] = ["priority", "timeout", "wait.duration", "wait.timeout", "approval.deadline"];
/// Those whose fields may all be expressions.
pub const LIMITS: [&str; 2] = ["task.limits", "compensate.limits"];
const PLACE: &str = "expressions";

/// Moves the expressions of a step to where its message has them.
pub fn place(step: &mut Map<String, Value>) {
    let mut found = Vec::new();
    for path in FIELDS {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        found.extend(take(step, parent, name).map(|text| (path.to_owned(), text)));
    }
    for parent in LIMITS {
        let names: Vec<_> =
            object(step, parent).map(|limits| limits.keys().cloned().collect()).unwrap_or_default();
        for name in names {
            found.extend(take(step, parent, &name).map(|text| (format!("{parent}.{name}"), text)));
        }
    }
    if found.is_empty() {
        return;
    }
    if let Some(places) = step.entry(PLACE).or_insert_with(|| Map::new().into()).as_object_mut() {
        places.extend(found);
    }
}

/// Moves the expressions of all steps of a workflow, also of those that are workflows.
pub fn place_in_workflow(spec: &mut Value) {
    for list in ["steps", "finally"] {
        let steps = spec.get_mut(list).and_then(Value::as_array_mut);
        for step in steps.into_iter().flatten().filter_map(Value::as_object_mut) {
            place(step);
            if let Some(spec) = step.get_mut("workflow").and_then(|workflow| workflow.get_mut("spec")) {
                place_in_workflow(spec);
            }
        }
    }
}

fn object<'a>(step: &'a mut Map<String, Value>, path: &str) -> Option<&'a mut Map<String, Value>> {
    path.split('.')
        .filter(|name| !name.is_empty())
        .try_fold(step, |at, name| at.get_mut(name)?.as_object_mut())
}

/// Takes an expression out of a field.
fn take(step: &mut Map<String, Value>, parent: &str, name: &str) -> Option<Value> {
    let fields = object(step, parent)?;
    fields.get(name)?.as_str().filter(|text| text.contains("${{"))?;
    fields.remove(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::v1;

    #[test]
    fn expressions_move_to_the_map_of_the_step() {
        let wait = json!({ "name": "w", "wait": { "duration": "${{ inputs.delay }}" } });
        let task = json!({ "prompt": "${{ inputs.text }}", "limits": { "maxTurns": "${{ inputs.turns }}", "timeout": "60s" } });
        let mut spec = json!({ "steps": [
            { "name": "t", "priority": "${{ inputs.rank }}", "task": task },
            { "name": "n", "workflow": { "spec": { "steps": [wait] } } },
        ] });
        place_in_workflow(&mut spec);
        let spec: v1::WorkflowSpec = serde_json::from_value(spec).unwrap();
        let of = |step: &v1::WorkflowStep| {
            let placed = step.expressions.iter().map(|(path, text)| format!("{path} {text}"));
            placed.collect::<Vec<_>>()
        };
        let expected = ["priority ${{ inputs.rank }}", "task.limits.maxTurns ${{ inputs.turns }}"];
        assert_eq!(of(&spec.steps[0]), expected);
        let Some(v1::workflow_step::Kind::Workflow(below)) = &spec.steps[1].kind else { panic!() };
        assert_eq!(of(&below.spec.as_ref().unwrap().steps[0]), ["wait.duration ${{ inputs.delay }}"]);
    }
}
