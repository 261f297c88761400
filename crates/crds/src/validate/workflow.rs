//! Validation of `Workflow` and `WorkflowTemplate` manifests: their form. The control plane checks the graph and the expressions.

use std::time::Duration;

use super::{Check, Violation};
use crate::workflow::MAX_INLINE_STEPS;
use crate::{Workflow, WorkflowSpec, WorkflowTemplate};

impl Workflow {
    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = Check { path: String::new(), found: &mut found };
        check.metadata(&self.metadata, true);
        check.field("spec").workflow(&self.spec);
        found
    }
}

impl Check<'_> {
    /// Checks the steps of a workflow, or its template.
    pub(super) fn workflow(&mut self, spec: &WorkflowSpec) {
        self.duration(
            "ttlAfterFinished",
            spec.ttl_after_finished,
            Duration::ZERO,
            Duration::from_hours(365 * 24),
        );
        let is_inline = !spec.steps.is_empty();
        if let Some(template) = &spec.template {
            self.field("template").dns_name(template, 63);
            self.at_most_one(&[("template", true), ("steps", is_inline)]);
            for (name, is_set) in [
                ("title", spec.title.is_some()),
                ("owner", spec.owner.is_some()),
                ("inputs", spec.inputs.is_some()),
                ("inputsSchema", spec.inputs_schema.is_some()),
                ("finally", !spec.finally.is_empty()),
                ("maxParallel", spec.max_parallel.is_some()),
                ("concurrency", spec.concurrency.is_some()),
                ("onFailure", spec.on_failure.is_some()),
                ("timeout", spec.timeout.is_some()),
                ("budgetUsd", spec.budget_usd.is_some()),
                ("outputs", !spec.outputs.is_empty()),
                ("outputsSchema", spec.outputs_schema.is_some()),
            ] {
                self.field(name).require(!is_set, "is part of the template");
            }
            return;
        }
        self.require(is_inline, "steps or template is required");
        self.field("parameters").require(spec.parameters.is_none(), "is for a template");
        let few = spec.steps.len() <= MAX_INLINE_STEPS;
        self.field("steps").require(few, "must have at most 200 items; larger workflows are templates");
        self.length("title", spec.title.as_deref(), rota_proto::limits::TITLE_BYTES);
        self.length("owner", spec.owner.as_deref(), 256);
        if let Err(error) = spec.to_api() {
            self.field(&error.path).fail(error.message);
        }
    }
}

impl WorkflowTemplate {
    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = Check { path: String::new(), found: &mut found };
        check.metadata(&self.metadata, false);
        let (spec, mut check) = (&self.spec, check.field("spec"));
        check.length("description", spec.description.as_deref(), 4096);
        check.field("parameters").require(spec.parameters.len() <= 64, "must have at most 64 items");
        if let Err(error) = spec.to_api() {
            check.field(&error.path).fail(error.message);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn fields(text: &str) -> Vec<String> {
        let text = format!("apiVersion: rota.dev/v1alpha1\n{text}");
        let found = parse("f", &text).unwrap()[0].object.validate();
        found.into_iter().map(|one| one.field).collect()
    }

    #[test]
    fn violations_have_their_paths() {
        let workflow = |spec: &str| fields(&format!("kind: Workflow\nmetadata: {{name: a}}\nspec: {spec}\n"));
        assert_eq!(workflow("{}"), ["spec"]);
        assert_eq!(workflow("{template: UP}"), ["spec.template"]);
        let both = "{template: a, steps: [{name: a}], title: x, budgetUsd: '1', outputs: {a: b}}";
        assert_eq!(workflow(both), ["spec", "spec.title", "spec.budgetUsd", "spec.outputs"]);
        assert_eq!(workflow("{steps: [{name: a}], parameters: {a: b}}"), ["spec.parameters"]);
        assert_eq!(workflow("{steps: [{name: a, tusk: {}}]}"), ["spec.steps[0].tusk"]);
        assert_eq!(workflow("{steps: [{name: a}], onFailure: Stop}"), ["spec.onFailure"]);
        let template =
            |spec: &str| fields(&format!("kind: WorkflowTemplate\nmetadata: {{name: a}}\nspec: {spec}\n"));
        assert_eq!(template("{workflow: {steps: [{name: 1}]}}"), ["spec.workflow.steps[0].name"]);
        assert_eq!(template("{parameters: [{nome: a}], workflow: {}}"), ["spec.parameters[0].nome"]);
    }

    #[test]
    fn large_workflows_are_templates() {
        let steps: Vec<_> = (0..201).map(|at| format!("{{name: s{at}}}")).collect();
        let text =
            format!("kind: Workflow\nmetadata: {{name: a}}\nspec: {{steps: [{}]}}\n", steps.join(", "));
        assert_eq!(fields(&text), ["spec.steps"]);
    }
}
