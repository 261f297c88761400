//! Plans as workflows, and workflows as manifests: what a person approves, edits and keeps.

use rota_crds::API_VERSION;
use rota_proto::v1::{self, target};
use serde::Deserialize;
use serde_json::{Value, json};

use super::proposal::{Proposal, Subtask};
use crate::exit::Failure;
use crate::output::{Paint, Table, first_line, target_text};

/// Beginning of an expression, and a text of which it is the result.
const EXPRESSION: (&str, &str) = ("${{", r#"${{ "${{" }}"#);
/// Name of the only step of a plan that could not be made.
const ONLY_STEP: &str = "work";
const KIND: &str = "Workflow";
/// Beginning of the name that `rota apply` generates for a plan without one.
const GENERATED: &str = "plan-";

/// What all subtasks have in common.
#[derive(Debug)]
pub(super) struct Common<'a> {
    pub(super) work: &'a str,
    /// Agent of subtasks that name no capabilities.
    pub(super) agent: &'a str,
    pub(super) workspace: Option<v1::Workspace>,
    /// Budget of all subtasks, in millionths of a US dollar.
    pub(super) budget: Option<i64>,
}

impl Common<'_> {
    /// Returns the workflow of a plan.
    pub(super) fn workflow(&self, plan: &Proposal) -> v1::WorkflowSpec {
        let share = self.share(plan.subtasks.len());
        let steps = plan.subtasks.iter().map(|subtask| self.step(subtask, share)).collect();
        v1::WorkflowSpec { title: first_line(self.work, 200), steps, ..Default::default() }
    }

    /// Returns a workflow with the work as its only step.
    pub(super) fn single(&self) -> v1::WorkflowSpec {
        let task = self.task(literal(self.work), &[], self.share(1));
        let kind = Some(v1::workflow_step::Kind::Task(Box::new(task)));
        let step = v1::WorkflowStep { name: ONLY_STEP.to_owned(), kind, ..Default::default() };
        v1::WorkflowSpec { title: first_line(self.work, 200), steps: vec![step], ..Default::default() }
    }

    fn share(&self, subtasks: usize) -> Option<i64> {
        self.budget?.checked_div(i64::try_from(subtasks).unwrap_or(i64::MAX))
    }

    fn step(&self, subtask: &Subtask, share: Option<i64>) -> v1::WorkflowStep {
        let mut prompt = literal(subtask.description.trim());
        if !subtask.depends_on.is_empty() {
            prompt.push_str("\n\nResults of the subtasks before this one:");
        }
        for name in &subtask.depends_on {
            prompt.push_str(&format!("\n\n## {name}\n${{{{ steps.{name}.result.text }}}}"));
        }
        let mut task = self.task(prompt, &subtask.capabilities, share);
        task.title = literal(&first_line(&subtask.description, 80));
        let input = subtask.estimated_minutes.map(|minutes| json!({ "estimatedMinutes": minutes }));
        task.input = input.and_then(|input| serde_json::from_value(input).ok());
        let need = |name: &String| v1::StepNeed { step: name.clone(), ..Default::default() };
        v1::WorkflowStep {
            name: subtask.name.clone(),
            needs: subtask.depends_on.iter().map(need).collect(),
            kind: Some(v1::workflow_step::Kind::Task(Box::new(task))),
            // A whole number, as was checked.
            priority: subtask.priority.and_then(|priority| priority.to_string().parse().ok()),
            ..Default::default()
        }
    }

    fn task(&self, prompt: String, capabilities: &[String], share: Option<i64>) -> v1::TaskSpec {
        let kind = match capabilities.is_empty() {
            true => target::Kind::Agent(self.agent.to_owned()),
            false => target::Kind::Capabilities(v1::CapabilitySet { capabilities: capabilities.to_vec() }),
        };
        v1::TaskSpec {
            prompt,
            target: Some(v1::Target { kind: Some(kind) }),
            workspace: self.workspace.clone(),
            limits: share.map(|share| v1::Limits { budget_micro_usd: share, ..Default::default() }),
            ..Default::default()
        }
    }
}

/// Returns a text whose expressions stay text.
fn literal(text: &str) -> String {
    text.replace(EXPRESSION.0, EXPRESSION.1)
}

/// Returns the manifest of a workflow.
pub(super) fn manifest(name: Option<&str>, spec: &v1::WorkflowSpec) -> anyhow::Result<Value> {
    let metadata = match name {
        Some(name) => json!({ "name": name }),
        None => json!({ "generateName": GENERATED }),
    };
    Ok(
        json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": serde_json::to_value(spec)? }),
    )
}

/// All that a manifest of a plan may have: what else a person adds would be lost.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Edited {
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    spec: Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: Option<String>,
    generate_name: Option<String>,
}

/// Returns the name and the workflow of a manifest that a person has edited.
pub(super) fn parse(text: &str) -> Result<(Option<String>, v1::WorkflowSpec), Failure> {
    let invalid = |error: String| Failure::usage(format!("the file is not a workflow: {error}"));
    let Edited { api_version, kind, metadata, spec } =
        serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))?;
    for (field, given, expected) in [("apiVersion", api_version, API_VERSION), ("kind", kind, KIND)] {
        if given != expected {
            return Err(invalid(format!("{field} must be {expected}")));
        }
    }
    if metadata.generate_name.is_some_and(|given| given != GENERATED) {
        return Err(invalid("metadata.generateName cannot be changed; give metadata.name".to_owned()));
    }
    Ok((metadata.name, serde_json::from_value(spec).map_err(|error| invalid(error.to_string()))?))
}

/// Returns the steps as lines of a table.
pub(super) fn table(spec: &v1::WorkflowSpec) -> Table {
    let mut table =
        Table::new(&["SUBTASK", "NEEDS", "AGENT", "PRIORITY", "MINUTES", "BUDGET", "DESCRIPTION"]);
    for step in spec.steps.iter().chain(&spec.finally) {
        let task = match &step.kind {
            Some(v1::workflow_step::Kind::Task(task)) => task.as_ref().clone(),
            _ => v1::TaskSpec::default(),
        };
        let needs: Vec<_> = step.needs.iter().map(|need| first_line(&need.step, 40)).collect();
        let minutes = task.input.as_ref().and_then(|input| input.fields.get("estimatedMinutes"));
        let minutes = minutes.and_then(|minutes| serde_json::to_string(minutes).ok());
        let budget = task.limits.map_or(0, |limits| limits.budget_micro_usd);
        let cells = [
            first_line(&step.name, 40),
            needs.join(","),
            first_line(&target_text(task.target.as_ref()), 60),
            step.priority.unwrap_or(5).to_string(),
            minutes.map(|minutes| first_line(minutes.trim_end_matches(".0"), 12)).unwrap_or_default(),
            crate::output::money(budget),
            first_line(&task.prompt.replace(EXPRESSION.1, EXPRESSION.0), 60),
        ];
        table.row(cells.map(|cell| (cell, Paint::Plain)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(budget: Option<i64>) -> Common<'static> {
        Common { work: "All of ${{ it }}", agent: "boss", workspace: None, budget }
    }

    fn plan() -> Proposal {
        serde_json::from_value(json!({"subtasks": [
            {"name": "build", "description": "Build ${{ secrets.KEY }}", "capabilities": ["code"], "priority": 8,
             "estimatedMinutes": 5},
            {"name": "check", "description": "Check", "dependsOn": ["build"]},
        ]}))
        .unwrap()
    }

    #[test]
    fn plans_become_workflows() {
        let spec = common(Some(1_000_000)).workflow(&plan());
        let value = serde_json::to_value(&spec).unwrap();
        assert_eq!(value["steps"][0]["task"]["prompt"], r#"Build ${{ "${{" }} secrets.KEY }}"#);
        assert_eq!(value["steps"][0]["task"]["target"]["capabilities"]["capabilities"], json!(["code"]));
        assert_eq!(value["steps"][0]["task"]["limits"]["budgetMicroUsd"], "500000");
        assert_eq!(value["steps"][0]["priority"], 8);
        assert_eq!(value["steps"][1]["needs"], json!([{"step": "build"}]));
        let prompt = value["steps"][1]["task"]["prompt"].as_str().unwrap();
        assert!(prompt.ends_with("## build\n${{ steps.build.result.text }}"), "{prompt}");
        assert_eq!(value["steps"][1]["task"]["target"]["agent"], "boss");
        let single = common(None).single();
        assert_eq!(single.title, "All of ${{ it }}");
        assert_eq!(single.steps.len(), 1);
    }

    #[test]
    fn manifests_are_read_as_they_are_written() {
        let spec = common(Some(30_000)).workflow(&plan());
        let value = manifest(Some("release"), &spec).unwrap();
        assert_eq!((&value["kind"], &value["metadata"]["name"]), (&json!("Workflow"), &json!("release")));
        let text = serde_saphyr::to_string(&value).unwrap();
        assert_eq!(parse(&text).unwrap(), (Some("release".to_owned()), spec.clone()));
        let parsed = rota_crds::parse("plan", &text).unwrap();
        assert!(matches!(parsed[0].object, rota_crds::Object::Workflow(_)));
        let unnamed = serde_saphyr::to_string(&manifest(None, &spec).unwrap()).unwrap();
        assert_eq!(parse(&unnamed).unwrap(), (None, spec));
        let changed = |from: &str, to: &str| {
            assert!(unnamed.contains(from), "{unnamed}");
            parse(&unnamed.replacen(from, to, 1)).unwrap_err().to_string()
        };
        for (from, to, problem) in [
            ("metadata:", "metadata:\n  labels: {team: web}", "labels"),
            ("metadata:", "status: {}\nmetadata:", "status"),
            ("generateName: plan-", "generateName: mine-", "give metadata.name"),
            ("kind: Workflow", "kind: Task", "kind must be Workflow"),
            ("steps:", "stages:", "stages"),
        ] {
            let refused = changed(from, to);
            assert!(refused.contains(problem), "{problem}: {refused}");
        }
        for wrong in ["", "{", "kind: Workflow"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
