//! What a `Task` resource says of its record, and when it is worth writing. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as KubeTime;
use rota_crds::resource::{Condition, Task, TaskPhase, TaskStatus, TaskUsage, condition};
use rota_crds::{Time, Usd};
use rota_proto::v1::{self, TaskState, WaitReason};

/// A task that starts within this time is not written down as waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a result that the resource shows.
const PREVIEW: usize = 1024;
/// Bytes of a sentence.
const SENTENCE: usize = 1024;

/// Causes that are over in a moment, or change all the time: no reason to write anything.
const PASSING: [&str; 4] = ["dispatching", "behind", "busy_with", "pool_starting"];

/// Why a task waits, in a word as Kubernetes writes it and a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub reason: String,
    pub message: String,
}

/// Why a task waits, in words that stay the same while it waits for the same: seconds to go, places in
/// the queue and counts of slots would each be a write, and each write a reason to look again.
pub(crate) fn waiting(task: &Task, record: &v1::Task, mut causes: Vec<v1::Cause>) -> Waiting {
    causes.retain(|cause| !PASSING.contains(&cause.code.as_str()));
    // That there is no worker says less than why none starts.
    causes.sort_by_key(|cause| cause.code != "workers_cannot_start");
    let status = record.status.clone().unwrap_or_default();
    let Some(cause) = causes.into_iter().next() else {
        // What held it until now is what people want to read.
        let written = task.status.as_ref().filter(|written| written.phase == phase(status.state()));
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        return written.map_or_else(Waiting::default, |written| Waiting {
            reason: text(&written.reason),
            message: text(&written.message),
        });
    };
    let until = |reason: WaitReason| {
        let wait = status.waiting.iter().find(|wait| wait.reason() == reason)?;
        wait.until.as_ref().and_then(time).map(|Time(time)| time)
    };
    let message = match cause.code.as_str() {
        "start_time" => until(WaitReason::StartTime).map(|time| format!("it starts at {time}")),
        "retry_delay" => until(WaitReason::RetryDelay).map(|time| format!("it is tried again at {time}")),
        "no_free_slot" => Some("all slots of the workers that could take it are busy".to_owned()),
        _ => None,
    };
    Waiting { reason: camel(&cause.code), message: message.unwrap_or(cause.message) }
}

/// What the resource shall say.
pub(crate) fn build(task: &Task, record: &v1::Task, waiting: Option<Waiting>, now: Timestamp) -> TaskStatus {
    let status = record.status.clone().unwrap_or_default();
    let phase = phase(status.state());
    let (reason, message) = explanation(&status, waiting);
    let mut built = TaskStatus {
        conditions: Vec::new(),
        observed_generation: task.metadata.generation,
        phase,
        reason,
        message,
        task_id: Some(record.uid.clone()),
        attempt: (status.attempt > 0).then_some(status.attempt),
        worker: filled(&status.worker),
        trace_id: filled(&status.trace_id),
        start_time: status.start_time.as_ref().and_then(time),
        completion_time: status.end_time.as_ref().and_then(time),
        usage: status.usage.as_ref().and_then(usage),
        result_preview: status.result.as_ref().and_then(|result| filled(cut(&result.text, PREVIEW))),
    };
    conditions(task, &mut built, now);
    built
}

/// What the resource of a task says that was never handed in, or is no longer known.
pub(crate) fn ended(
    task: &Task,
    phase: TaskPhase,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> TaskStatus {
    let mut built = TaskStatus {
        observed_generation: task.metadata.generation,
        phase,
        reason: Some(reason.to_owned()),
        message: Some(cut(message, SENTENCE).to_owned()),
        completion_time: Some(Time(now)),
        ..task.status.clone().unwrap_or_default()
    };
    conditions(task, &mut built, now);
    built
}

/// Whether nothing will change any more.
pub(crate) fn is_final(phase: TaskPhase) -> bool {
    matches!(
        phase,
        TaskPhase::Succeeded | TaskPhase::Failed | TaskPhase::Cancelled | TaskPhase::OutcomeUnknown
    )
}

/// When a status is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    /// Unless something happens before.
    In(Duration),
    Never,
}

/// A task that starts at once costs two writes: one when it runs, one when it has ended. One that
/// waits gets a third, so that people see why.
pub(crate) fn due(task: &Task, built: &TaskStatus, waited: Duration) -> Due {
    let written = task.status.as_ref();
    let unknown = written.is_none_or(|written| written.task_id.is_none());
    if written == Some(built) {
        Due::Never
    } else if unknown && waited < PATIENCE && !is_final(built.phase) && !runs(built.phase) {
        Due::In(PATIENCE - waited)
    } else {
        Due::Now
    }
}

pub(crate) fn runs(phase: TaskPhase) -> bool {
    matches!(phase, TaskPhase::Running | TaskPhase::InputRequired)
}

fn phase(state: TaskState) -> TaskPhase {
    match state {
        TaskState::Unspecified | TaskState::Pending => TaskPhase::Pending,
        // Between being sent and being taken there are milliseconds.
        TaskState::Queued | TaskState::Assigned => TaskPhase::Queued,
        TaskState::Running => TaskPhase::Running,
        TaskState::InputRequired => TaskPhase::InputRequired,
        TaskState::Succeeded => TaskPhase::Succeeded,
        TaskState::Failed => TaskPhase::Failed,
        TaskState::Cancelled => TaskPhase::Cancelled,
    }
}

fn explanation(status: &v1::TaskStatus, waiting: Option<Waiting>) -> (Option<String>, Option<String>) {
    if let Some(failure) = &status.failure {
        let class = failure.class().as_str_name().trim_start_matches("FAILURE_CLASS_");
        return (Some(camel(class)), filled(cut(&failure.message, SENTENCE)));
    }
    if let Some(input) = status.pending_input.first() {
        return (Some("InputRequired".to_owned()), filled(cut(&input.prompt, SENTENCE)));
    }
    match waiting {
        Some(waiting) => (filled(&waiting.reason), filled(cut(&waiting.message, SENTENCE))),
        None if status.cancelling => (Some("Cancelling".to_owned()), None),
        None => (None, None),
    }
}

/// Conditions keep the time at which they last changed.
fn conditions(task: &Task, built: &mut TaskStatus, now: Timestamp) {
    let old = task.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let reason = built.reason.clone().unwrap_or_else(|| format!("{:?}", built.phase));
    let message = built.message.clone().unwrap_or_default();
    let mut put = |type_: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        let before = old.iter().find(|one| one.type_ == type_);
        // What never held and does not hold now needs no saying.
        if !holds && before.is_none() {
            return;
        }
        let since = before.filter(|one| one.status == status).map(|one| one.last_transition_time.clone());
        built.conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.clone(),
            message: message.clone(),
            observed_generation: task.metadata.generation,
            last_transition_time: since.unwrap_or(KubeTime(now)),
        });
    };
    let phase = built.phase;
    put(condition::RUNNING, runs(phase));
    put(condition::COMPLETE, phase == TaskPhase::Succeeded);
    put(condition::FAILED, is_final(phase) && phase != TaskPhase::Succeeded);
}

fn usage(usage: &v1::Usage) -> Option<TaskUsage> {
    let input_tokens =
        usage.input_tokens.saturating_add(usage.cache_read_tokens).saturating_add(usage.cache_write_tokens);
    let built = TaskUsage {
        input_tokens,
        output_tokens: usage.output_tokens,
        cost_usd: (usage.cost_micro_usd > 0).then_some(Usd { micro: usage.cost_micro_usd }),
    };
    (built != TaskUsage::default()).then_some(built)
}

fn time(time: &pbjson_types::Timestamp) -> Option<Time> {
    // Whole seconds: that is how far people look, and what Kubernetes itself writes.
    Timestamp::from_second(time.seconds).ok().map(Time)
}

fn filled(text: impl AsRef<str>) -> Option<String> {
    let text = text.as_ref();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The beginning of a text, at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// `AGENT_MISSING` and `agent_missing` as Kubernetes writes it: `AgentMissing`.
pub(super) fn camel(word: &str) -> String {
    let mut camel = String::with_capacity(word.len());
    for part in word.split(['_', '-', ' ']).filter(|part| !part.is_empty()) {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.extend(letters.map(|letter| letter.to_ascii_lowercase()));
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: TaskState) -> v1::Task {
        let status = v1::TaskStatus { state: state.into(), attempt: 1, ..Default::default() };
        v1::Task { uid: "u".into(), status: Some(status), ..Default::default() }
    }

    fn cause(code: &str, message: &str) -> v1::Cause {
        v1::Cause { code: code.to_owned(), message: message.to_owned(), hint: String::new() }
    }

    fn built(task: &Task, state: TaskState) -> TaskStatus {
        build(task, &record(state), None, Timestamp::from_second(100).unwrap())
    }

    #[test]
    fn a_quick_task_costs_two_writes() {
        let mut task = Task::default();
        let soon = Duration::from_millis(10);
        let queued = built(&task, TaskState::Queued);
        assert_eq!(due(&task, &queued, soon), Due::In(PATIENCE - soon));
        let running = built(&task, TaskState::Running);
        assert_eq!(due(&task, &running, soon), Due::Now);
        task.status = Some(running.clone());
        assert_eq!(due(&task, &running, soon), Due::Never);
        let done = built(&task, TaskState::Succeeded);
        assert_eq!(due(&task, &done, soon), Due::Now);
    }

    #[test]
    fn one_that_waits_says_why() {
        let task = Task::default();
        let cause = cause("agent_missing", "agent x does not exist");
        let waiting = waiting(&task, &record(TaskState::Pending), vec![cause]);
        let now = Timestamp::from_second(1).unwrap();
        let pending = build(&task, &record(TaskState::Pending), Some(waiting), now);
        assert_eq!(pending.reason.as_deref(), Some("AgentMissing"));
        assert_eq!(due(&task, &pending, PATIENCE), Due::Now);
        assert_eq!(pending.conditions, []);
    }

    #[test]
    fn a_queue_that_moves_is_no_news() {
        let (mut task, record, now) =
            (Task::default(), record(TaskState::Queued), Timestamp::from_second(1).unwrap());
        let mut say = |causes: Vec<v1::Cause>| {
            let why = waiting(&task, &record, causes);
            let status = build(&task, &record, Some(why), now);
            let due = due(&task, &status, PATIENCE);
            task.status = Some(status);
            due
        };
        let busy = |slots: u8| cause("no_free_slot", &format!("all {slots} slots are busy"));
        assert_eq!(say(vec![busy(2), cause("behind", "9 go first")]), Due::Now);
        assert_eq!(say(vec![busy(4), cause("behind", "8 go first")]), Due::Never);
        assert_eq!(say(vec![cause("dispatching", "a slot is free")]), Due::Never);
        assert_eq!(say(vec![cause("no_worker", "none"), busy(0)]), Due::Now);
    }

    #[test]
    fn a_time_to_wait_for_is_a_time_of_day() {
        let mut record = record(TaskState::Pending);
        let until = Some(pbjson_types::Timestamp { seconds: 0, nanos: 5 });
        let wait = v1::Wait { reason: WaitReason::StartTime.into(), until, ..Default::default() };
        record.status.as_mut().unwrap().waiting.push(wait);
        let why = waiting(&Task::default(), &record, vec![cause("start_time", "it starts in 9 s")]);
        assert_eq!(why.message, "it starts at 1970-01-01T00:00:00Z");
    }

    #[test]
    fn conditions_keep_their_time_and_are_true_once() {
        let mut task = Task::default();
        task.status =
            Some(build(&task, &record(TaskState::Running), None, Timestamp::from_second(1).unwrap()));
        let done = built(&task, TaskState::Succeeded);
        let of = |type_: &str| done.conditions.iter().find(|one| one.type_ == type_).cloned();
        assert_eq!(of("Running").unwrap().status, "False");
        assert_eq!(of("Complete").unwrap().status, "True");
        assert_eq!(of("Failed"), None);
        task.status = Some(done.clone());
        let again = build(&task, &record(TaskState::Succeeded), None, Timestamp::from_second(999).unwrap());
        assert_eq!(again, done, "nothing changed, so nothing is written");
    }

    #[test]
    fn an_unknown_outcome_is_a_failure_that_is_not_run_again() {
        let task = Task::default();
        let now = Timestamp::from_second(5).unwrap();
        let lost = ended(&task, TaskPhase::OutcomeUnknown, "RecordGone", "gone", now);
        assert!(is_final(lost.phase));
        assert_eq!(lost.conditions[0].type_, "Failed");
    }

    #[test]
    fn texts_are_cut_between_letters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(camel("FAILURE_TIMEOUT"), "FailureTimeout");
        assert_eq!(camel("no_free_slot"), "NoFreeSlot");
    }
}
