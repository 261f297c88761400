//! Status of a `Schedule`, and when the next look at its record is due. Pure.

use std::time::Duration;

use jiff::Timestamp;
use rota_core::text::prefix;
use rota_crds::Time;
use rota_crds::resource::{Schedule, ScheduleStatus, condition};
use rota_proto::v1::{self, ScheduleRun, TaskState, WorkflowState};

use crate::condition::Conditions;
use crate::error::camel_case;
use crate::stored::{Outcome, RESYNC_INTERVAL};

/// Interval at which runs that have not ended are looked at.
const RUN_CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// Time after which a run has begun.
const START_TIME: Duration = Duration::from_secs(2);
const MAX_MESSAGE_BYTES: usize = 1024;

/// Whether the control plane has accepted the schedule before.
pub(super) fn was_accepted(schedule: &Schedule) -> bool {
    let conditions = schedule.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|one| one.type_ == condition::ACCEPTED && one.status == "True")
}

/// Returns the time until the status has something new: a run that ends, or begins.
pub(super) fn next_look(record: &v1::Schedule, now: Timestamp) -> Duration {
    let status = record.status.clone().unwrap_or_default();
    if !status.active.is_empty() {
        return RUN_CHECK_INTERVAL;
    }
    let next = status.next_times.first().and_then(time).map(|Time(next)| now.duration_until(next));
    let next = next.map(|until| Duration::try_from(until).unwrap_or_default() + START_TIME);
    next.unwrap_or(RESYNC_INTERVAL).min(RESYNC_INTERVAL)
}

pub(super) fn status(schedule: &Schedule, outcome: &Outcome<v1::Schedule>, now: Timestamp) -> ScheduleStatus {
    let before = schedule.status.clone().unwrap_or_default();
    let generation = schedule.metadata.generation;
    let (accepted, reason, text) = match outcome {
        Ok(record) => (true, "Accepted", record.status.as_ref().map_or("", |status| &status.problem)),
        Err(refusal) => (false, refusal.reason.as_str(), refusal.message.as_str()),
    };
    let message = prefix(text, MAX_MESSAGE_BYTES).to_owned();
    let all = Conditions {
        old: &before.conditions,
        generation,
        reason: reason.to_owned(),
        message: if accepted { String::new() } else { message.clone() },
        now,
    };
    let mut conditions = Vec::new();
    all.put_always(&mut conditions, condition::ACCEPTED, accepted);
    let message = Some(message).filter(|message| !message.is_empty());
    let Ok(record) = outcome else {
        // The control plane keeps to what it has accepted before.
        return ScheduleStatus { conditions, observed_generation: generation, message, ..before };
    };
    let found = record.status.clone().unwrap_or_default();
    let last = found.active.last().or(found.recent.first());
    ScheduleStatus {
        conditions,
        observed_generation: generation,
        message,
        active: i32::try_from(found.active.len()).unwrap_or(i32::MAX),
        next_run_time: found.next_times.first().and_then(time),
        last_run_time: last.and_then(|run| run.schedule_time.as_ref()).and_then(time),
        last_run_state: last.map(state),
        last_run_id: last.map(id).filter(|id| !id.is_empty()),
    }
}

fn id(run: &ScheduleRun) -> String {
    if run.workflow.is_empty() { run.task.clone() } else { run.workflow.clone() }
}

/// Returns the state of a run's task or workflow in one word.
fn state(run: &ScheduleRun) -> String {
    let name = match (run.state(), run.workflow_state()) {
        (_, workflow) if workflow != WorkflowState::Unspecified => {
            workflow.as_str_name().trim_start_matches("WORKFLOW_STATE_")
        }
        (task, _) if task != TaskState::Unspecified => task.as_str_name().trim_start_matches("TASK_STATE_"),
        _ if id(run).is_empty() => "NOT_STARTED",
        _ => "UNKNOWN",
    };
    camel_case(name)
}

fn time(time: &pbjson_types::Timestamp) -> Option<Time> {
    Timestamp::new(time.seconds, time.nanos).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stored::Refusal;

    const NOW: &str = "2030-01-01T00:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn stored(status: serde_json::Value) -> Outcome<v1::Schedule> {
        Ok(serde_json::from_value(json!({ "status": status })).unwrap())
    }

    #[test]
    fn status_has_the_last_run_and_the_next_time() {
        let schedule = Schedule::default();
        let record = stored(json!({
            "nextTimes": ["2030-01-01T03:00:00Z", "2030-01-02T03:00:00Z"],
            "active": [{ "scheduleTime": "2029-12-31T03:00:00Z", "workflow": "w", "workflowState": "WORKFLOW_STATE_COMPENSATING" }],
            "recent": [{ "scheduleTime": "2029-12-30T03:00:00Z", "task": "t", "state": "TASK_STATE_FAILED" }],
        }));
        let built = status(&schedule, &record, now());
        assert_eq!(built.conditions[0].status, "True");
        assert_eq!((built.active, built.last_run_id.as_deref()), (1, Some("w")));
        assert_eq!(built.last_run_state.as_deref(), Some("Compensating"));
        assert_eq!(built.last_run_time.unwrap().to_string(), "2029-12-31T03:00:00Z");
        assert_eq!(built.next_run_time.unwrap().to_string(), "2030-01-01T03:00:00Z");
        let record = stored(json!({
            "recent": [{ "scheduleTime": "2029-12-30T03:00:00Z", "message": "no" }], "problem": "the schedule is paused",
        }));
        let built = status(&schedule, &record, now());
        assert_eq!(built.last_run_state.as_deref(), Some("NotStarted"));
        assert_eq!(built.message.as_deref(), Some("the schedule is paused"));
        assert_eq!((built.last_run_id, built.next_run_time), (None, None));
    }

    #[test]
    fn refused_change_keeps_the_runs() {
        let mut schedule = Schedule::default();
        let record = stored(json!({ "nextTimes": ["2030-01-01T03:00:00Z"] }));
        schedule.status = Some(status(&schedule, &record, now()));
        assert!(was_accepted(&schedule));
        let message = format!("schedule.spec.cron: {}", "x".repeat(5000));
        let refused = Err(Refusal { reason: "InvalidField".to_owned(), message, is_missing: false });
        let refused = status(&schedule, &refused, now());
        assert_eq!(refused.conditions[0].status, "False");
        assert!(refused.conditions[0].message.starts_with("schedule.spec.cron: x"));
        assert_eq!(refused.message.map(|message| message.len()), Some(MAX_MESSAGE_BYTES));
        assert_eq!(refused.next_run_time.unwrap().to_string(), "2030-01-01T03:00:00Z");
    }

    #[test]
    fn next_look_follows_the_next_change() {
        let look = |status| next_look(&stored(status).unwrap(), now()).as_secs();
        assert_eq!(look(json!({ "nextTimes": ["2030-01-01T00:01:00Z"] })), 62);
        assert_eq!(look(json!({ "nextTimes": ["2030-01-01T03:00:00Z"] })), 600);
        assert_eq!(look(json!({ "nextTimes": ["2029-12-31T23:59:00Z"] })), 2);
        assert_eq!(look(json!({})), 600);
        assert_eq!(look(json!({ "nextTimes": ["2030-01-01T03:00:00Z"], "active": [{}] })), 15);
    }
}
