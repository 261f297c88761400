//! Derives the status of a `Task` resource from its record, and decides when it is worth a write. Pure.

use std::time::Duration;

use jiff::Timestamp;
use rota_core::text::prefix;
use rota_crds::resource::{Task, TaskPhase, TaskStatus, TaskUsage, condition};
use rota_crds::{Time, Usd};
use rota_proto::causes::{
    BEHIND, BUDGET_SPENT, BUSY_WITH, DELIVERY, DISPATCHING, NO_FREE_SLOT, POOL_STARTING, RETRY_DELAY,
    START_TIME, WORKER_BREAKER_OPEN, WORKER_NOT_READY, WORKERS_CANNOT_START,
};
use rota_proto::v1::{self, TaskState, WaitReason};

use crate::condition::Conditions;
use crate::control_store::Loss;
use crate::error::camel_case;
use crate::lifetime;

/// Time after which a task that has not started gets a status write for its wait.
pub(crate) const WAIT_STATUS_DELAY: Duration = Duration::from_secs(1);
/// Status writes under way that lengthen the delay once more, and how often at most.
const WRITES_PER_DELAY: usize = 12;
const MAX_DELAYS: u32 = 4;
/// First statuses of the waits of a namespace that are due each second, and the longest delay of one: most tasks of a burst start before.
const WAITS_PER_SECOND: u32 = 50;
const MAX_BURST_DELAY: Duration = Duration::from_secs(30);
/// Longest delay of the first status of a task that waits.
const MAX_FIRST_DELAY: Duration =
    WAIT_STATUS_DELAY.saturating_mul(1 + MAX_DELAYS).saturating_add(MAX_BURST_DELAY);
// An operator that has just started does not know whether a task without a status was submitted.
const _: () = assert!(lifetime::FAILING_STATUS_DELAY.as_secs() > MAX_FIRST_DELAY.as_secs());
/// Least time between two writes for the text of a wait alone. A change of a route's causes is one of every task that waits there.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
const MAX_PREVIEW_BYTES: usize = 1024;
const MAX_MESSAGE_BYTES: usize = 1024;
const MAX_PROGRESS_BYTES: usize = 256;

/// Causes that pass without intervention or change continuously: not worth a write.
pub(super) const TRANSIENT_CAUSES: [&str; 4] = [DISPATCHING, BEHIND, BUSY_WITH, POOL_STARTING];

/// Why a task waits: a CamelCase reason and a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WaitExplanation {
    pub reason: String,
    pub message: String,
}

/// Returns the message of a task whose record is missing, with what happened to the store.
pub(crate) fn record_missing(loss: Option<Loss>) -> String {
    let cause = loss.map(|loss| format!(": {}", loss.describe())).unwrap_or_default();
    format!("the control plane no longer has a record of this task{cause}; the task is not run again")
}

/// Explains a wait in terms that do not change while the cause stays the same: remaining seconds, queue positions and slot
/// counts would each cause a write, and each write another reconciliation.
pub(crate) fn explain_wait(task: &Task, record: &v1::Task, mut causes: Vec<v1::Cause>) -> WaitExplanation {
    causes.retain(|cause| !TRANSIENT_CAUSES.contains(&cause.code.as_str()));
    // Why no worker starts is more useful than that there is none.
    causes.sort_by_key(|cause| cause.code != WORKERS_CANNOT_START);
    let status = record.status.clone().unwrap_or_default();
    let Some(cause) = causes.into_iter().next() else {
        // Keeps the explanation that was written last.
        let written = task.status.as_ref().filter(|written| written.phase == phase(status.state()));
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        return written.map_or_else(WaitExplanation::default, |written| WaitExplanation {
            reason: text(&written.reason),
            message: text(&written.message),
        });
    };
    let until = |reason: WaitReason| {
        let wait = status.waiting.iter().find(|wait| wait.reason() == reason)?;
        wait.until.as_ref().and_then(time).map(|Time(time)| time)
    };
    let message = match cause.code.as_str() {
        START_TIME => until(WaitReason::StartTime).map(|time| format!("the task starts at {time}")),
        RETRY_DELAY => until(WaitReason::RetryDelay).map(|time| format!("the task is retried at {time}")),
        DELIVERY => until(WaitReason::Delivery)
            .map(|time| format!("the work is done and kept; it is delivered again at {time}")),
        BUDGET_SPENT => budget_spent(&status),
        NO_FREE_SLOT => Some("all slots of the eligible workers are busy".to_owned()),
        WORKER_BREAKER_OPEN => {
            Some("eligible workers get no tasks after consecutive failures of their own".to_owned())
        }
        WORKER_NOT_READY => Some(without_counts(&cause.message)),
        _ => None,
    };
    WaitExplanation { reason: camel_case(&cause.code), message: message.unwrap_or(cause.message) }
}

/// Names the budget that a task waits for, and until when.
fn budget_spent(status: &v1::TaskStatus) -> Option<String> {
    let wait = status.waiting.iter().find(|wait| wait.reason() == WaitReason::Budget)?;
    let Time(until) = wait.until.as_ref().and_then(time)?;
    Some(format!("{} has no room for the task until {until}, unless running tasks leave some", wait.subject))
}

/// Returns the part of a message that names a worker and its reason, without the counts before it.
fn without_counts(message: &str) -> String {
    match message.split_once("; ") {
        Some((_, reason)) => format!("eligible workers take no tasks; {reason}"),
        None => message.to_owned(),
    }
}

/// Builds the status of a record.
pub(crate) fn build(
    task: &Task,
    record: &v1::Task,
    waiting: Option<WaitExplanation>,
    now: Timestamp,
) -> TaskStatus {
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
        worker: non_empty(&status.worker),
        trace_id: non_empty(&status.trace_id),
        start_time: status.start_time.as_ref().and_then(time),
        completion_time: status.end_time.as_ref().and_then(time),
        usage: status.usage.as_ref().and_then(usage),
        progress: status.progress.as_ref().and_then(progress),
        result_preview: status
            .result
            .as_ref()
            .and_then(|result| non_empty(prefix(&result.text, MAX_PREVIEW_BYTES))),
    };
    conditions(task, &mut built, now);
    built
}

/// Builds the final status of a task that was never accepted, or whose record is missing.
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
        message: Some(prefix(message, MAX_MESSAGE_BYTES).to_owned()),
        completion_time: Some(Time(now)),
        ..task.status.clone().unwrap_or_default()
    };
    conditions(task, &mut built, now);
    built
}

/// Returns whether a task has been accepted, as far as its status shows.
pub(crate) fn is_submitted(task: &Task) -> bool {
    task.status.as_ref().is_some_and(|status| status.task_id.is_some())
}

/// Returns whether the phase is final.
pub(crate) fn is_final(phase: TaskPhase) -> bool {
    matches!(
        phase,
        TaskPhase::Succeeded | TaskPhase::Failed | TaskPhase::Cancelled | TaskPhase::OutcomeUnknown
    )
}

/// When to write a status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteDue {
    Now,
    /// After a delay, unless the task changes before.
    In(Duration),
    /// After a delay, for the text of a wait alone: what else follows a write does not wait for it.
    Refresh(Duration),
    Never,
}

/// Decides when to write a status. A task that ends within a second of its start costs one write, others two: while they
/// run and when they have ended. One that waits gets another, which explains the wait, and others when that is for another
/// reason, or is described by an old text. Progress comes with these alone. Each write costs the API server more than the
/// creation of the object, so with `writes` under way those that the next one may replace wait longer, and first ones wait for
/// their turn in the burst of their namespace.
pub(crate) fn write_due(task: &Task, built: &TaskStatus, ages: Ages, writes: usize) -> WriteDue {
    let written = task.status.as_ref();
    let never_written = !is_submitted(task);
    let was_running = written.is_some_and(|written| is_running(written.phase));
    let load = u32::try_from(writes / WRITES_PER_DELAY).unwrap_or(u32::MAX).min(MAX_DELAYS);
    let load = WAIT_STATUS_DELAY * load;
    let delay = WAIT_STATUS_DELAY + load;
    let waits_as_before = written.is_some_and(|written| differs_in_wait(written, built));
    let is_text = waits_as_before && written.is_some_and(|written| written.reason == built.reason);
    let (delay, age) = match built.phase {
        _ if written.is_some_and(|written| is_same(written, built)) => return WriteDue::Never,
        TaskPhase::Running if !was_running => (delay, ages.running.unwrap_or(ages.task)),
        TaskPhase::Pending | TaskPhase::Queued if never_written => {
            let turn = Duration::from_secs(1).saturating_mul(ages.wait.place) / WAITS_PER_SECOND;
            (delay + turn.min(MAX_BURST_DELAY), ages.task)
        }
        TaskPhase::Queued if is_text => (REFRESH_INTERVAL + ages.wait.spread + load, ages.wait.written),
        TaskPhase::Queued if waits_as_before => (load, ages.wait.differs),
        _ => return WriteDue::Now,
    };
    match delay.checked_sub(age).filter(|left| !left.is_zero()) {
        Some(left) if is_text && !never_written => WriteDue::Refresh(left),
        Some(left) => WriteDue::In(left),
        None => WriteDue::Now,
    }
}

/// Times since a task was submitted, and since it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    pub task: Duration,
    pub running: Option<Duration>,
    pub wait: WaitAges,
}

/// Times since the wait of a task was written, and since it is for another reason than was written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WaitAges {
    pub written: Duration,
    pub differs: Duration,
    /// Further time that the task lets pass before its text is refreshed.
    pub spread: Duration,
    /// Place in the burst of the namespace, of a task that has no status yet.
    pub place: u32,
}

/// Builds the status of a task that cannot be submitted for a while.
pub(crate) fn unsubmitted(task: &Task, reason: &str, message: &str) -> TaskStatus {
    TaskStatus {
        observed_generation: task.metadata.generation,
        reason: Some(reason.to_owned()),
        message: Some(prefix(message, MAX_MESSAGE_BYTES).to_owned()),
        ..task.status.clone().unwrap_or_default()
    }
}

fn is_running(phase: TaskPhase) -> bool {
    matches!(phase, TaskPhase::Running | TaskPhase::InputRequired)
}

fn phase(state: TaskState) -> TaskPhase {
    match state {
        TaskState::Unspecified | TaskState::Pending => TaskPhase::Pending,
        // A task is assigned for milliseconds only, until its worker accepts it.
        TaskState::Queued | TaskState::Assigned => TaskPhase::Queued,
        TaskState::Running => TaskPhase::Running,
        TaskState::InputRequired => TaskPhase::InputRequired,
        TaskState::Succeeded => TaskPhase::Succeeded,
        TaskState::Failed => TaskPhase::Failed,
        TaskState::Cancelled => TaskPhase::Cancelled,
    }
}

fn explanation(
    status: &v1::TaskStatus,
    waiting: Option<WaitExplanation>,
) -> (Option<String>, Option<String>) {
    if let Some(failure) = &status.failure {
        let class = failure.class().as_str_name().trim_start_matches("FAILURE_CLASS_");
        return (Some(camel_case(class)), non_empty(prefix(&failure.message, MAX_MESSAGE_BYTES)));
    }
    if let Some(input) = status.pending_input.first() {
        return (Some("InputRequired".to_owned()), non_empty(prefix(&input.prompt, MAX_MESSAGE_BYTES)));
    }
    match waiting {
        Some(waiting) => (non_empty(&waiting.reason), non_empty(prefix(&waiting.message, MAX_MESSAGE_BYTES))),
        None if status.cancelling => (Some("Cancelling".to_owned()), None),
        None => (None, None),
    }
}

/// Adds the conditions. Their transition times are kept while their status does not change.
fn conditions(task: &Task, built: &mut TaskStatus, now: Timestamp) {
    let all = Conditions {
        old: task.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default(),
        generation: task.metadata.generation,
        reason: built.reason.clone().unwrap_or_else(|| format!("{:?}", built.phase)),
        message: built.message.clone().unwrap_or_default(),
        now,
    };
    let phase = built.phase;
    all.put(&mut built.conditions, condition::RUNNING, is_running(phase));
    all.put(&mut built.conditions, condition::COMPLETE, phase == TaskPhase::Succeeded);
    all.put(&mut built.conditions, condition::FAILED, is_final(phase) && phase != TaskPhase::Succeeded);
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

fn progress(progress: &v1::Progress) -> Option<String> {
    let percent = (progress.fraction.clamp(0.0, 1.0) * 100.0).round();
    let fraction = (percent > 0.0).then(|| format!("{percent}%"));
    let step = non_empty(progress.step.trim());
    let both: Vec<_> = fraction.into_iter().chain(step).collect();
    non_empty(prefix(&both.join(" "), MAX_PROGRESS_BYTES))
}

/// Whether two statuses differ in the progress at most, which changes continuously.
fn is_same(written: &TaskStatus, built: &TaskStatus) -> bool {
    *built == TaskStatus { progress: built.progress.clone(), ..written.clone() }
}

/// Whether two statuses differ in the explanation at most, which conditions repeat, and in the progress.
fn differs_in_wait(written: &TaskStatus, built: &TaskStatus) -> bool {
    let explained = TaskStatus {
        reason: built.reason.clone(),
        message: built.message.clone(),
        conditions: built.conditions.clone(),
        ..written.clone()
    };
    is_same(&explained, built)
}

pub(super) fn time(time: &pbjson_types::Timestamp) -> Option<Time> {
    // Whole seconds, as Kubernetes writes them.
    Timestamp::from_second(time.seconds).ok().map(Time)
}

fn non_empty(text: impl AsRef<str>) -> Option<String> {
    let text = text.as_ref();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
