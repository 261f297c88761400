//! How an attempt's outcome is told to the control plane. Pure.

use rota_proto::v1::FailureClass;
use rota_proto::worker::v1::{Cancelled, Result as Told, result};

use super::shared::Why;
use crate::runtimes::{Ending, Outcome, failure};

/// The result. Of an attempt that no longer counts only that it has ended: its slot is free.
pub(super) fn told(task_id: &str, fence: i64, outcome: Outcome, why: Option<Why>) -> Told {
    let kind = match (outcome.ending, why) {
        (Ending::Stopped { by }, Some(Why::Stale)) => stopped(Why::Stale, by),
        (_, Some(Why::Stale)) => stopped(Why::Stale, "its own end"),
        (Ending::Succeeded(result), _) => result::Kind::Succeeded(result),
        (Ending::Failed(failed), None) => result::Kind::Failed(failed),
        // What fails after it was asked to end has ended because of that.
        (Ending::Failed(_), Some(why)) => stopped(why, "interrupt"),
        (Ending::Stopped { by }, Some(why)) => stopped(why, by),
        (Ending::Stopped { .. }, None) => {
            result::Kind::Failed(failure(FailureClass::Crash, "it ended as if it had been asked to"))
        }
    };
    Told {
        task_id: task_id.to_owned(),
        fence,
        last_attempt_seq: 0,
        kind: Some(kind),
        usage: outcome.usage,
        runtime_session: outcome.runtime_session,
    }
}

fn stopped(why: Why, by: &str) -> result::Kind {
    let (class, message) = match why {
        Why::Cancelled | Why::Stale => return result::Kind::Cancelled(Cancelled { by: by.to_owned() }),
        Why::Timeout => (FailureClass::Timeout, "its time was over"),
        Why::Silence => (FailureClass::Hang, "nothing was heard of it for longer than its silence timeout"),
        Why::CutOff => {
            (FailureClass::WorkerLost, "its worker was cut off from the control plane and ended it")
        }
        Why::WorkerEnds => (FailureClass::WorkerLost, "its worker was stopped"),
    };
    result::Kind::Failed(failure(class, message))
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::TaskResult;

    use super::*;

    fn class(ending: Ending, why: Option<Why>) -> Option<FailureClass> {
        match told("t", 1, Outcome::new(ending), why).kind {
            Some(result::Kind::Failed(failed)) => Some(failed.class()),
            _ => None,
        }
    }

    #[test]
    fn reasons_become_classes() {
        let stopped = || Ending::Stopped { by: "kill" };
        assert_eq!(class(stopped(), Some(Why::Timeout)), Some(FailureClass::Timeout));
        assert_eq!(class(stopped(), Some(Why::Silence)), Some(FailureClass::Hang));
        assert_eq!(class(stopped(), Some(Why::CutOff)), Some(FailureClass::WorkerLost));
        assert_eq!(class(stopped(), None), Some(FailureClass::Crash));
        let failed = Ending::Failed(failure(FailureClass::Agent, "x"));
        assert_eq!(class(failed, Some(Why::Timeout)), Some(FailureClass::Timeout));
    }

    #[test]
    fn a_cancelled_one_says_by_what_and_a_stale_one_only_that() {
        let by = |by: &str| Some(result::Kind::Cancelled(Cancelled { by: by.to_owned() }));
        for why in [Why::Cancelled, Why::Stale] {
            let stopped = Outcome::new(Ending::Stopped { by: "kill" });
            assert_eq!(told("t", 1, stopped, Some(why)).kind, by("kill"));
        }
        let success = || Outcome::new(Ending::Succeeded(TaskResult::default()));
        assert_eq!(told("t", 1, success(), Some(Why::Stale)).kind, by("its own end"));
        // One that was done before it heard the request is done.
        let done = told("t", 1, success(), Some(Why::Cancelled)).kind;
        assert!(matches!(done, Some(result::Kind::Succeeded(_))));
    }
}
