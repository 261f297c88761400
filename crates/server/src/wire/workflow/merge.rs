//! Merges of the work of other steps: their validation, and the workflow that each of them is.

use rota_expressions::References;
use rota_proto::v1;
use serde_json::{Map, Value, json};
use tonic::Status;

use super::agents::one_of_all;
use super::expression;
use super::new_step::task_spec;
use crate::wire::check;
use crate::wire::status::invalid;

/// Steps whose work one step merges.
const MAX_FROM: usize = 64;
const MAX_STRATEGY: usize = 64;

/// Merges each commit, or leaves the start as it is. The names of files in conflict are its output.
const MERGE: &str = r#"start=$(git rev-parse HEAD)
for commit in $COMMITS; do
  git cat-file -e "$commit^{commit}" || { echo "commit $commit is not in the repository" >&2; exit 1; }
done
conflict=false
if [ -n "$STRATEGY" ]; then set -- --strategy-option "$STRATEGY"; else set --; fi
for commit in $COMMITS; do
  git merge --quiet --no-edit "$@" "$commit" || { conflict=true; break; }
done
if $conflict; then
  git diff --name-only --diff-filter=U
  git merge --abort && git reset --quiet --hard "$start" || exit 1
  if [ "$ON_CONFLICT" = fail ]; then echo "the work of the steps is in conflict" >&2; exit 1; fi
fi
echo "{\"data\": {\"conflict\": $conflict}}" >"$ROTA_OUTPUT/result.json"
"#;

/// Checks the commits, whatever the resolver of the conflict has reported.
const VERIFY: &str = r#"for commit in $COMMITS; do
  git merge-base --is-ancestor "$commit" HEAD || { echo "commit $commit is not merged" >&2; exit 1; }
done
echo "{\"data\": {\"head\": \"$(git rev-parse HEAD)\"}}" >"$ROTA_OUTPUT/result.json"
"#;

const QUESTION: &str = "Merge the work of the steps, which is in conflict, push that, and approve with its branch or commit as the comment: \
                        ${{ inputs.commits.join(', ') }}";

/// Checks a merge, and returns what its expressions use.
pub(super) fn check(field: &str, given: &v1::Merge) -> Result<References, Status> {
    let at = |name: &str| format!("{field}.{name}");
    if given.from.is_empty() {
        return Err(invalid(at("from"), "is required"));
    }
    check::count(&at("from"), given.from.len(), MAX_FROM)?;
    check::length(&at("strategy"), &given.strategy, MAX_STRATEGY)?;
    let git = given.git.as_ref().ok_or_else(|| invalid(at("git"), "is required"))?;
    for (name, is_set) in [("depth", git.depth != 0), ("ref_from", !git.ref_from.is_empty())] {
        if is_set {
            return Err(invalid(at(&format!("git.{name}")), "must not be set for a merge"));
        }
    }
    let mut used = References::default();
    for (index, step) in given.from.iter().enumerate() {
        let field = at(&format!("from[{index}]"));
        if !rota_core::ids::is_step_name(step) {
            return Err(invalid(field, format!("{:?} is not the name of a step", check::shorten(step))));
        }
        used.merge(&expression(&field, &format!("steps['{step}'].results"))?);
    }
    let on_conflict = given.on_conflict.as_ref().and_then(|one| one.kind.as_ref());
    if let Some(v1::on_conflict::Kind::Task(task)) = on_conflict {
        let field = at("on_conflict.task");
        if task.workspace.is_some() {
            return Err(invalid(
                format!("{field}.workspace"),
                "must not be set: it is a clone as that of the merge",
            ));
        }
        used.merge(&task_spec(&field, &one_of_all(&field, task, true)?)?);
    }
    let failed = |error: serde_json::Error| invalid(field, error.to_string());
    let json = serde_json::to_value(given).map_err(failed)?;
    used.merge(&rota_expressions::references(&json).map_err(|error| invalid(field, error.to_string()))?);
    let (spec, _) = workflow(given, &[]).map_err(failed)?;
    super::nested::check_spec(field, &spec)?;
    Ok(used)
}

/// Returns the workflow that merges commits, and its inputs. The texts of the step have no expressions any more: what looks like one
/// came from their results.
pub(crate) fn workflow(
    filled: &v1::Merge,
    commits: &[String],
) -> Result<(v1::WorkflowSpec, Map<String, Value>), serde_json::Error> {
    let mut inputs = Map::from_iter([("commits".to_owned(), json!(commits))]);
    let filled = literal(serde_json::to_value(filled)?, &mut inputs);
    let git = filled["git"].clone();
    let mut pushed = git.clone();
    if pushed["push"].is_null() {
        pushed["push"] = json!({});
    }
    let (approval, task) = (&filled["onConflict"]["approval"], &filled["onConflict"]["task"]);
    let fails = approval.is_null() && task.is_null();
    let strategy = filled["strategy"].as_str().unwrap_or_default();
    let environment = json!({
        "COMMITS": "${{ inputs.commits.join(' ') }}", "STRATEGY": strategy,
        "ON_CONFLICT": if fails { "fail" } else { "resolve" },
    });
    let mut merge = command(&filled["target"], MERGE, &pushed, &environment);
    if fails {
        merge["retry"] = json!({ "maxAttempts": 1 });
    }
    let mut steps = vec![json!({ "name": "merge", "task": merge })];
    let condition = "steps.merge.result.conflict";
    let (resolve, commit, branch) = if !task.is_null() {
        let mut task = task.clone();
        task["workspace"] = json!({ "git": pushed });
        if task["environment"].is_null() {
            task["environment"] = json!({});
        }
        task["environment"]["COMMITS"] = environment["COMMITS"].clone();
        let resolve = json!({ "name": "resolve", "task": task });
        (Some(resolve), "steps.resolve.result.commit", "steps.resolve.result.branch")
    } else if !approval.is_null() {
        let mut approval = approval.clone();
        if approval["prompt"].is_null() {
            approval["prompt"] = json!(QUESTION);
        }
        let comment = "steps.resolve.result.comment";
        (Some(json!({ "name": "resolve", "approval": approval })), comment, comment)
    } else {
        (None, "", "")
    };
    let mut outputs = json!({
        "commit": "${{ steps.merge.result.commit }}", "branch": "${{ steps.merge.result.branch }}",
        "conflict": format!("${{{{ {condition} }}}}"),
    });
    if let Some(mut resolve) = resolve {
        resolve["needs"] = json!([{ "step": "merge" }]);
        resolve["condition"] = json!(condition);
        let mut resolved = git;
        resolved["ref"] = json!(format!("${{{{ {commit} }}}}"));
        if let Some(fields) = resolved.as_object_mut() {
            fields.remove("push");
        }
        let mut verify = command(&filled["target"], VERIFY, &resolved, &environment);
        verify["retry"] = json!({ "maxAttempts": 1 });
        steps.push(resolve);
        steps.push(json!({
            "name": "verify", "needs": [{ "step": "merge" }, { "step": "resolve" }], "condition": condition, "task": verify,
        }));
        let either = |one: &str, other: &str| {
            json!(format!("${{{{ {condition} ? {one} : steps.merge.result.{other} }}}}"))
        };
        outputs["commit"] = either("steps.verify.result.head", "commit");
        outputs["branch"] = either(branch, "branch");
    }
    Ok((serde_json::from_value(json!({ "steps": steps, "outputs": outputs }))?, inputs))
}

fn command(target: &Value, script: &str, git: &Value, environment: &Value) -> Value {
    let mut task = json!({
        "runtime": { "command": { "shell": script } }, "environment": environment, "workspace": { "git": git },
    });
    if !target.is_null() {
        task["target"] = target.clone();
    }
    task
}

/// Replaces texts that would be expressions by inputs with these texts.
fn literal(value: Value, inputs: &mut Map<String, Value>) -> Value {
    match value {
        Value::String(text) if text.contains("${{") => {
            let name = format!("text{}", inputs.len());
            let reference = format!("${{{{ inputs.{name} }}}}");
            inputs.insert(name, text.into());
            reference.into()
        }
        Value::Array(list) => list.into_iter().map(|one| literal(one, inputs)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, one)| (name, literal(one, inputs))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_results_are_no_expressions() {
        let merge: v1::Merge = serde_json::from_value(json!({
            "from": ["a"], "git": { "url": "https://h/r" },
            "onConflict": { "task": { "prompt": "resolve ${{ inputs.secret }}" } },
        }))
        .unwrap();
        let (spec, inputs) = workflow(&merge, &["c1".to_owned()]).unwrap();
        let spec = serde_json::to_value(spec).unwrap();
        assert_eq!(spec["steps"][1]["task"]["prompt"], "${{ inputs.text1 }}");
        assert_eq!(inputs["text1"], "resolve ${{ inputs.secret }}");
        assert_eq!(inputs["commits"], json!(["c1"]));
        assert_eq!(spec["steps"][2]["task"]["workspace"]["git"]["ref"], "${{ steps.resolve.result.commit }}");
        let names: Vec<_> = spec["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
        assert_eq!(names, ["merge", "resolve", "verify"]);
    }
}
