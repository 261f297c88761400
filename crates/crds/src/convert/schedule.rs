//! Converts `Schedule` manifests to API messages.

use rota_proto::{names, v1};

use super::duration;
use crate::Schedule;

impl Schedule {
    /// Converts the manifest. `namespace` applies if it has none.
    pub fn to_api(&self, namespace: &str) -> v1::Schedule {
        let namespace = self.metadata.namespace.as_deref().unwrap_or(namespace);
        let spec = &self.spec;
        let task = v1::Task {
            spec: Some(spec.task.to_api()),
            priority: spec.task.priority.map(|priority| priority.0),
            labels: self.metadata.labels.clone(),
            ..Default::default()
        };
        let history = spec
            .history
            .map(|history| v1::ScheduleHistory { succeeded: history.succeeded, failed: history.failed });
        v1::Schedule {
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
                task: Some(task),
            }),
            ..Default::default()
        }
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
        let json = serde_json::to_value(schedule.to_api("default")).unwrap();
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
}
