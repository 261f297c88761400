//! Conversion of an attempt's report into the Result message. Pure.

use rota_proto::v1::{Failure, FailureClass, TaskResult};
use rota_proto::worker::v1::{Cancelled, Result as AttemptResult, result};

use super::handle::StopReason;
use crate::report::failure;
use crate::runtimes::{RunOutcome, RunReport};

/// Builds the Result. For a stale attempt it contains only that it has ended, which frees the slot. `obstacle` is an error
/// that kept the attempt from starting, `undelivered` the result of work of which only the delivery has failed.
pub(super) fn build(
    task_id: &str,
    fence: i64,
    report: RunReport,
    undelivered: Option<TaskResult>,
    reason: Option<StopReason>,
    obstacle: Option<Failure>,
) -> AttemptResult {
    let stopped = |reason, by| stopped(reason, by, obstacle.as_ref());
    let kind = match (report.outcome, reason) {
        (RunOutcome::Stopped { by }, Some(StopReason::Stale)) => stopped(StopReason::Stale, by),
        (_, Some(StopReason::Stale)) => stopped(StopReason::Stale, "its own end"),
        (RunOutcome::Succeeded(result), _) => result::Kind::Succeeded(result),
        (RunOutcome::Failed(failed), None) => result::Kind::Failed(failed),
        // The control plane knows whether its task was cancelled.
        (RunOutcome::Failed(failed), Some(_)) if undelivered.is_some() => result::Kind::Failed(failed),
        // A failure after the request to end is a consequence of that request.
        (RunOutcome::Failed(_), Some(reason)) => stopped(reason, "interrupt"),
        (RunOutcome::Stopped { by }, Some(reason)) => stopped(reason, by),
        (RunOutcome::Stopped { .. }, None) => result::Kind::Failed(failure(
            FailureClass::Crash,
            "the runtime reported a stop that was not requested",
        )),
    };
    AttemptResult {
        task_id: task_id.to_owned(),
        fence,
        last_attempt_seq: 0,
        kind: Some(kind),
        usage: report.usage,
        undelivered,
        runtime_session: report.runtime_session,
    }
}

fn stopped(reason: StopReason, by: &str, obstacle: Option<&Failure>) -> result::Kind {
    let (class, message) = match reason {
        StopReason::Cancelled | StopReason::Budget | StopReason::Stale => {
            return result::Kind::Cancelled(Cancelled { by: by.to_owned() });
        }
        // It has not worked: only the storage has kept it waiting.
        StopReason::Timeout if let Some(away) = obstacle.filter(|away| away.of_storage) => {
            return result::Kind::Failed(away.clone());
        }
        StopReason::Timeout => (FailureClass::Timeout, "the attempt exceeded its deadline"),
        StopReason::Silence => (FailureClass::Hang, "no output for longer than the silence timeout"),
        StopReason::Disconnected => (
            FailureClass::WorkerLost,
            "the worker lost its connection to the control plane and ended the attempt",
        ),
        StopReason::WorkerShutdown => (FailureClass::WorkerLost, "the worker was stopped"),
    };
    let message = match obstacle {
        Some(obstacle) => format!("{message}; {}", obstacle.message),
        None => message.to_owned(),
    };
    result::Kind::Failed(failure(class, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(outcome: RunOutcome, reason: Option<StopReason>) -> Option<FailureClass> {
        match build("t", 1, RunReport::new(outcome), None, reason, None).kind {
            Some(result::Kind::Failed(failed)) => Some(failed.class()),
            _ => None,
        }
    }

    #[test]
    fn stop_reasons_map_to_failure_classes() {
        let stopped = || RunOutcome::Stopped { by: "kill" };
        assert_eq!(class(stopped(), Some(StopReason::Timeout)), Some(FailureClass::Timeout));
        assert_eq!(class(stopped(), Some(StopReason::Silence)), Some(FailureClass::Hang));
        assert_eq!(class(stopped(), Some(StopReason::Disconnected)), Some(FailureClass::WorkerLost));
        assert_eq!(class(stopped(), None), Some(FailureClass::Crash));
        let failed = RunOutcome::Failed(failure(FailureClass::Agent, "x"));
        assert_eq!(class(failed, Some(StopReason::Timeout)), Some(FailureClass::Timeout));
    }

    #[test]
    fn deadlines_blame_the_storage_that_was_away() {
        for (of_storage, expected) in [(true, FailureClass::Source), (false, FailureClass::Timeout)] {
            let obstacle = Failure { of_storage, ..failure(FailureClass::Source, "it is away") };
            let report = RunReport::new(RunOutcome::Stopped { by: "interrupt" });
            let built = build("t", 1, report, None, Some(StopReason::Timeout), Some(obstacle));
            let Some(result::Kind::Failed(failed)) = built.kind else { panic!("{built:?}") };
            assert!(failed.class() == expected && failed.message.contains("it is away"), "{failed:?}");
        }
    }

    #[test]
    fn cancelled_and_stale_results_name_the_means() {
        let by = |by: &str| Some(result::Kind::Cancelled(Cancelled { by: by.to_owned() }));
        for reason in [StopReason::Cancelled, StopReason::Budget, StopReason::Stale] {
            let stopped = RunReport::new(RunOutcome::Stopped { by: "kill" });
            assert_eq!(build("t", 1, stopped, None, Some(reason), None).kind, by("kill"));
        }
        let success = || RunReport::new(RunOutcome::Succeeded(TaskResult::default()));
        assert_eq!(build("t", 1, success(), None, Some(StopReason::Stale), None).kind, by("its own end"));
        // A success that precedes the request stands.
        let done = build("t", 1, success(), None, Some(StopReason::Cancelled), None).kind;
        assert!(matches!(done, Some(result::Kind::Succeeded(_))));
    }

    #[test]
    fn undelivered_work_is_reported_unless_it_is_stale() {
        let failed = || RunReport::failed(FailureClass::Delivery, "away");
        for (reason, is_kept) in [
            (None, true),
            (Some(StopReason::WorkerShutdown), true),
            (Some(StopReason::Timeout), true),
            (Some(StopReason::Cancelled), true),
            (Some(StopReason::Stale), false),
        ] {
            let built = build("t", 1, failed(), Some(TaskResult::default()), reason, None);
            let is_failed = matches!(&built.kind, Some(result::Kind::Failed(failed)) if failed.class() == FailureClass::Delivery);
            assert_eq!(is_failed, is_kept, "{reason:?}");
        }
    }
}
