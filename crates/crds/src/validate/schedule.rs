//! Validation of `Schedule` manifests. The control plane checks the expression and the time zone.

use std::time::Duration;

use super::{Check, Violation};
use crate::Schedule;

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
        let mut task = check.field("task");
        task.task(&spec.task, None);
        task.field("startTime").require(spec.task.start_time.is_none(), "is set by the schedule");
        let state = spec.task.desired_state.is_none();
        task.field("desiredState").require(state, "must not be set; use the schedule's paused");
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
}
