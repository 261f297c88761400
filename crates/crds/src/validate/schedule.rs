//! Validation of `Schedule` manifests. The control plane checks the expression and the time zone.

use std::time::Duration;

use super::{Check, Violation};
use crate::Schedule;

const DESIRED_STATE: &str = "must not be set; use the schedule's paused";

impl Schedule {
    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = Check { path: String::new(), found: &mut found };
        check.metadata(&self.metadata, false);
        if let Some(name) = &self.metadata.name {
            check.field("metadata").field("name").dns_name(name, 63);
        }
        let (spec, mut check) = (&self.spec, check.field("spec"));
        check.field("cron").require(!spec.cron.trim().is_empty(), "must not be empty");
        check.length("cron", Some(&spec.cron), 256);
        check.length("timeZone", spec.time_zone.as_deref(), 64);
        check.duration("jitter", spec.jitter, Duration::ZERO, Duration::from_hours(1));
        let week = Duration::from_hours(7 * 24);
        check.duration("startDeadline", spec.start_deadline, Duration::from_secs(1), week);
        if let Some(history) = spec.history {
            check.field("history").range("succeeded", Some(history.succeeded), 0, 100);
            check.field("history").range("failed", Some(history.failed), 0, 100);
        }
        let given = [("task", spec.task.is_some()), ("workflow", spec.workflow.is_some())];
        if check.at_most_one(&given) == 0 {
            check.fail("task or workflow is required");
        }
        if let Some(task) = &spec.task {
            let mut check = check.field("task");
            check.task(task, None);
            check.field("startTime").require(task.start_time.is_none(), "is set by the schedule");
            check.field("desiredState").require(task.desired_state.is_none(), DESIRED_STATE);
        }
        if let Some(workflow) = &spec.workflow {
            let mut check = check.field("workflow");
            check.workflow(workflow);
            check.field("desiredState").require(workflow.desired_state.is_none(), DESIRED_STATE);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn violations_have_their_paths() {
        let text = "apiVersion: rota.dev/v1alpha1
kind: Schedule
metadata: {name: nightly}
spec:
  cron: ' '
  jitter: 2h
  startDeadline: 0s
  history: {succeeded: 101, failed: -1}
  task: {agent: A, startTime: 2030-01-01T00:00:00Z, desiredState: Suspended}
";
        let found = parse("f", text).unwrap()[0].object.validate();
        let fields: Vec<_> = found.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.cron",
                "spec.jitter",
                "spec.startDeadline",
                "spec.history.succeeded",
                "spec.history.failed",
                "spec.task.agent",
                "spec.task.startTime",
                "spec.task.desiredState"
            ]
        );
    }

    #[test]
    fn task_or_workflow_runs() {
        let fields = |what: &str| {
            let text = format!(
                "apiVersion: rota.dev/v1alpha1\nkind: Schedule\nmetadata: {{name: a}}\nspec: {{cron: 0 3 * * *{what}}}\n"
            );
            let found = parse("f", &text).unwrap()[0].object.validate();
            found.into_iter().map(|one| one.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(""), ["spec"]);
        assert_eq!(fields(", task: {prompt: a}, workflow: {template: a}"), ["spec"]);
        assert_eq!(fields(", workflow: {template: a}"), [""; 0]);
        assert_eq!(fields(", workflow: {}"), ["spec.workflow"]);
        assert_eq!(
            fields(", workflow: {steps: [{name: a, tusk: {}}], desiredState: Suspended}"),
            ["spec.workflow.steps[0].tusk", "spec.workflow.desiredState"]
        );
    }
}
