//! Converts `Schedule` manifests to API messages.

use rota_proto::{names, v1};

use super::duration;
use crate::Schedule;

impl Schedule {
    /// Converts the manifest. `namespace` applies if it has none.
    ///
    /// Returns an error for fields of steps that the API does not have, which `validate` reports with their paths.
    pub fn to_api(&self, namespace: &str) -> Result<v1::Schedule, String> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or(namespace);
        let (spec, labels) = (&self.spec, &self.metadata.labels);
        let task = spec.task.as_ref().map(|task| v1::Task {
            spec: Some(Box::new(task.to_api())),
            priority: task.priority.map(|priority| priority.0),
            labels: labels.clone(),
            ..Default::default()
        });
        let workflow = spec.workflow.as_ref().map(|workflow| workflow.to_scheduled(labels)).transpose()?;
        let history = spec
            .history
            .map(|history| v1::ScheduleHistory { succeeded: history.succeeded, failed: history.failed });
        Ok(v1::Schedule {
            name: names::schedule(namespace, self.metadata.name.as_deref().unwrap_or_default()),
            labels: self.metadata.labels.clone(),
            spec: Some(v1::ScheduleSpec {
                cron: spec.cron.clone(),
                time_zone: spec.time_zone.clone().unwrap_or_default(),
                jitter: duration(spec.jitter),
                start_deadline: duration(spec.start_deadline),
                concurrency: spec.concurrency.map_or(0, |value| value.to_api().into()),
                catch_up: spec.catch_up.map_or(0, |value| value.to_api().into()),
                paused: spec.paused,
                history,
                task,
                workflow,
            }),
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Object, parse};

    #[test]
    fn every_field_is_converted() {
        let text = "apiVersion: rota.dev/v1alpha1
kind: Schedule
metadata: {name: nightly, namespace: team, labels: {a: b}}
spec:
  cron: 0 3 * * *
  timeZone: Europe/Berlin
  jitter: 5m
  startDeadline: 1h
  concurrency: Forbid
  catchUp: Skip
  paused: true
  history: {succeeded: 3, failed: 1}
  task: {prompt: check it, agent: coder, priority: HIGH}
";
        let object = parse("f", text).unwrap().remove(0).object;
        assert_eq!(object.validate(), []);
        let Object::Schedule(schedule) = object else { panic!("a schedule") };
        let json = serde_json::to_value(schedule.to_api("default").unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "name": "namespaces/team/schedules/nightly", "labels": {"a": "b"},
                "spec": {
                    "cron": "0 3 * * *", "timeZone": "Europe/Berlin", "jitter": "300s", "startDeadline": "3600s",
                    "concurrency": "SCHEDULE_CONCURRENCY_FORBID", "catchUp": "SCHEDULE_CATCH_UP_SKIP", "paused": true,
                    "history": {"succeeded": 3, "failed": 1},
                    "task": {
                        "labels": {"a": "b"}, "priority": 8,
                        "spec": {"prompt": "check it", "target": {"agent": "coder"}},
                    },
                },
            })
        );
    }

    #[test]
    fn workflow_takes_the_place_of_a_task() {
        let api = |spec: &str| {
            let text = format!(
                "apiVersion: rota.dev/v1alpha1\nkind: Schedule\nmetadata: {{name: a, labels: {{a: b}}}}\nspec:\n  cron: 0 3 * * *\n  workflow: {spec}\n"
            );
            let object = parse("f", &text).unwrap().remove(0).object;
            assert_eq!(object.validate(), []);
            let Object::Schedule(schedule) = object else { panic!("a schedule") };
            serde_json::to_value(schedule.to_api("default").unwrap()).unwrap()["spec"]["workflow"].clone()
        };
        assert_eq!(
            api("{template: deploy, parameters: {image: x}, ttlAfterFinished: 1h}"),
            serde_json::json!({
                "template": "deploy", "parameters": {"image": "x"}, "ttlAfterFinished": "3600s", "labels": {"a": "b"},
            })
        );
        assert_eq!(
            api("{title: Report, steps: [{name: a, wait: {duration: 1s}}]}"),
            serde_json::json!({
                "spec": {"title": "Report", "steps": [{"name": "a", "wait": {"duration": "1s"}}]}, "labels": {"a": "b"},
            })
        );
    }
}
