//! Invariants after every command.

use std::fmt::Debug;

use rota_core::failure::Class;
use rota_core::retry::MAX_WAITS;
use rota_core::task::{
    Body, Command, Desired, EndedAttempt, Event, NEARLY_SPENT, NEARLY_SPENT_BY_TASK, Rejected, Reply, State,
    StateChange, Task, Transition, WorkerRef,
};
use rota_core::usage::Usage;
use rota_core::{Fence, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::harness::Harness;

/// Observer of a whole history.
#[derive(Debug, Default)]
pub(super) struct Observer {
    cancelled: bool,
    successes: u32,
    results: u32,
    ends: u32,
    /// Attempts that left their worker until an answer comes, or whose loss was forgiven.
    uncounted: u32,
}

impl Observer {
    pub(super) fn create(new: Task) -> (Harness, Self) {
        let harness = Harness::new(new);
        let mut observer = Self { cancelled: harness.task.desired == Desired::Cancelled, ..Self::default() };
        let first = harness.log.first().unwrap();
        assert_eq!(first.log_seq, 1);
        assert!(
            matches!(&first.body, Body::State(StateChange { from: None, to: State::Pending, reason, .. })
            if reason == "created")
        );
        numbered(&harness.log, 0, &harness.task);
        linked(&harness.log[1..], State::Pending, &harness.task);
        observer.ends += u32::from(harness.state().is_final());
        record(&harness.task, observer.uncounted);
        (harness, observer)
    }

    pub(super) fn check(
        &mut self,
        before: &Task,
        command: &Command,
        done: &Result<Transition, Rejected>,
        harness: &Harness,
    ) {
        let after = &harness.task;
        let Ok(done) = done else {
            assert_eq!(before, after, "a rejected command changed the record");
            return;
        };
        numbered(&done.events, before.log_seq, after);
        linked(&done.events, before.state, after);
        done.events.iter().for_each(round_trip);
        fences(before, command, after);
        facts(before, done, after);
        let forgiven = forgives(before, command);
        let unforgiven = |after: &Task| Task {
            log_seq: before.log_seq,
            stale_noted: before.stale_noted,
            losses: before.losses.clone(),
            unclear_losses: before.unclear_losses.clone(),
            worker_losses: after.worker_losses + u32::from(forgiven),
            ..without_late_usage(before, done, after)
        };
        if is_foreign(before, command) {
            let same = unforgiven(after);
            assert_eq!(before, &same, "a stale report counted: {command:?}");
        }
        if before.state.is_final() {
            finality(before, command, done, after);
        }
        if done.reply == Reply::Stale {
            let same = unforgiven(after);
            assert_eq!(before, &same, "a stale word has changed something");
        }
        self.completion(before, command, done, after);
        usage_grows(&before.total_usage(), &after.total_usage());
        let counts =
            |task: &Task| [task.attempts, task.failures, task.waits, task.worker_losses, task.hand_backs];
        let mut known = counts(before);
        // A worker that came back was not lost.
        known[3] -= u32::from(forgiven);
        let planned = before.lost.as_ref().is_some_and(|lost| lost.planned && after.assignment.is_some());
        known[4] = known[4].saturating_sub(u32::from(planned));
        assert!(known.iter().zip(counts(after)).all(|(old, new)| *old <= new), "a count fell");
        let released = matches!(command, Command::Release { .. }) && done.reply != Reply::Stale;
        let deliveries = |task: &Task| task.undelivered.map_or(0, |left| left.failed);
        let undelivered = deliveries(after) > deliveries(before);
        let over_budget = |ended: &EndedAttempt| {
            ended.failure.as_ref().is_some_and(|failure| failure.class == Class::Budget)
                && !after.state.is_final()
        };
        let cut_off = done.attempt_ended.as_ref().is_some_and(over_budget);
        self.uncounted += [released, forgiven, undelivered, cut_off].map(u32::from).iter().sum::<u32>();
        record(after, self.uncounted);
        never_spins(after);
    }

    fn completion(&mut self, before: &Task, command: &Command, done: &Transition, after: &Task) {
        let cancels = matches!(command, Command::Update { desired: Some(Desired::Cancelled), .. });
        self.cancelled |= cancels && !before.state.is_final();
        assert_eq!(done.ended, !before.state.is_final() && after.state.is_final());
        self.ends += u32::from(done.ended);
        // That of work which is not delivered is stored once, and is none of the task.
        let undelivered = done.result.is_some() && after.undelivered.is_some();
        assert!(!undelivered || before.undelivered.is_none());
        // A retry of one that has failed delivers it.
        assert!(after.undelivered.is_none() || !after.state.is_final() || after.state == State::Failed);
        self.results += u32::from(done.result.is_some() && !undelivered);
        let succeeds =
            |event: &Event| matches!(&event.body, Body::State(change) if change.to == State::Succeeded);
        self.successes += done.events.iter().filter(|event| succeeds(event)).count() as u32;
        assert!(self.ends <= 1 && self.successes <= 1 && self.results <= self.successes);
        assert_eq!(self.successes == 1, after.state == State::Succeeded);
        assert_eq!(self.results == 1, after.has_result);
        if self.cancelled {
            assert_eq!(after.desired, Desired::Cancelled, "a cancellation was forgotten");
            assert!(!matches!(
                after.state,
                State::Succeeded | State::Failed | State::Pending | State::Queued
            ));
        }
    }
}

/// Returns the record without what a superseded attempt has reported late, which may end the running one.
fn without_late_usage(before: &Task, done: &Transition, after: &Task) -> Task {
    let mut same = after.clone();
    if !done.used.is_zero() {
        same.usage.clone_from(&before.usage);
        same.superseded.clone_from(&before.superseded);
        same.confirm_by = before.confirm_by;
        same.nearly_spent = before.nearly_spent;
        if let (Some(same), Some(before)) = (&mut same.assignment, &before.assignment) {
            same.stopping.clone_from(&before.stopping);
        }
    }
    same
}

/// Events are numbered consecutively, and the record has the last number.
fn numbered(events: &[Event], from: u64, after: &Task) {
    for (event, seq) in events.iter().zip(from + 1..) {
        assert_eq!(event.log_seq, seq);
    }
    assert_eq!(after.log_seq, from + events.len() as u64);
}

/// Each state change starts in the state of the one before, and the last ends in the record's state.
fn linked(events: &[Event], from: State, after: &Task) {
    let mut state = from;
    for event in events {
        if let Body::State(change) = &event.body {
            assert_eq!(change.from, Some(state));
            assert!(!state.is_final(), "a step out of an end");
            assert_ne!(change.to, state, "a step to where it stands");
            state = change.to;
        }
    }
    assert_eq!(state, after.state);
}

/// Returns the sender of a report, its fence, and whether it also counts from a later session.
fn word(command: &Command) -> Option<(&WorkerRef, Option<Fence>, bool)> {
    match command {
        Command::Accept(attempt)
        | Command::UseModel { attempt, .. }
        | Command::Reject { attempt, .. }
        | Command::Report { attempt, .. }
        | Command::KeepArtifacts { attempt, .. }
        | Command::Release { attempt, .. }
        | Command::Finish { attempt, .. } => Some((&attempt.by, Some(attempt.fence), false)),
        Command::Resume { by, fence } => Some((by, Some(*fence), true)),
        Command::LoseWorker { session, .. } => Some((session, None, true)),
        _ => None,
    }
}

/// Whether a worker names an attempt with which it was counted as lost.
fn forgives(task: &Task, command: &Command) -> bool {
    let Command::Resume { by, fence } = command else { return false };
    !task.state.is_final() && task.losses.iter().any(|(lost, worker)| lost == fence && *worker == by.worker)
}

/// Whether a report does not come from the live assignment in its session.
fn is_foreign(task: &Task, command: &Command) -> bool {
    let Some((by, fence, also_later)) = word(command) else { return false };
    let lives = task.assignment.as_ref().is_some_and(|live| {
        by.worker == live.worker
            && fence.is_none_or(|fence| fence == task.fence)
            && (by.epoch == live.epoch || (also_later && by.epoch > live.epoch))
    });
    let returns = matches!(command, Command::Resume { .. })
        && matches!(task.state, State::Pending | State::Queued)
        && task.lost.as_ref().is_some_and(|lost| {
            by.worker == lost.assignment.worker
                && fence == Some(task.fence)
                && by.epoch >= lost.assignment.epoch
        });
    !lives && !returns
}

/// The facts of the transition agree with the records.
fn facts(before: &Task, done: &Transition, after: &Task) {
    let left = before.assignment.is_some() && (after.assignment.is_none() || after.fence != before.fence);
    assert_eq!(done.attempt_ended.is_some(), left, "{done:?}");
    if let Some(ended) = &done.attempt_ended {
        assert_eq!(ended.fence, before.fence);
        assert_eq!(ended.started_at.is_some(), after.attempts >= ended.assignment.attempt, "{ended:?}");
    }
    let dequeued = before.state == State::Queued && after.state != State::Queued;
    assert_eq!(done.queue_wait.is_some(), dequeued, "{done:?}");
    let (total, known) = (after.total_usage(), before.total_usage());
    let added = Usage { model: total.model.clone(), ..known.plus(&done.used) };
    assert_eq!(added, total);
    let running = after.assignment.as_ref().and_then(|assignment| assignment.started_at);
    assert_eq!(running.is_some(), matches!(after.state, State::Running | State::InputRequired));
}

fn fences(before: &Task, command: &Command, after: &Task) {
    let given = u64::from(matches!(command, Command::Assign { .. }));
    assert_eq!(after.fence.0, before.fence.0 + given);
    assert!(after.stale_noted >= before.stale_noted && after.stale_noted <= after.fence);
}

/// An ended task changes only its labels, and notes late results.
fn finality(before: &Task, command: &Command, done: &Transition, after: &Task) {
    let same = Task {
        labels: before.labels.clone(),
        log_seq: before.log_seq,
        stale_noted: before.stale_noted,
        ..without_late_usage(before, done, after)
    };
    assert_eq!(before, &same);
    for event in &done.events {
        match &event.body {
            Body::Change { fields, .. } => assert_eq!(fields, &["labels"]),
            Body::Notice { code, .. } => {
                assert!(["stale_result", NEARLY_SPENT, NEARLY_SPENT_BY_TASK].contains(&&**code))
            }
            other => panic!("{command:?} on an ended task: {other:?}"),
        }
    }
}

fn usage_grows(before: &Usage, after: &Usage) {
    assert!(
        before.input_tokens <= after.input_tokens
            && before.cost_micro_usd <= after.cost_micro_usd
            && before.turns <= after.turns,
        "usage fell: {before:?} {after:?}"
    );
}

/// Invariants of a single record.
fn record(task: &Task, uncounted: u32) {
    assert_eq!(task.state.is_on_worker(), task.assignment.is_some());
    assert_eq!(task.state.is_final(), task.ended_at.is_some());
    assert_eq!(task.state == State::Failed, task.failure.is_some());
    match task.state {
        State::Pending => assert!(!task.waits().is_empty(), "it waits for nothing: {task:?}"),
        State::Queued => {
            assert!(task.ready_at.is_some() && task.desired == Desired::Run && task.agent_known);
            assert!(task.retry_at.is_none() && task.not_before.is_none());
        }
        State::Assigned => assert_eq!(task.attempt(), task.attempts + 1),
        State::Running | State::InputRequired => {
            assert!(task.started_at.is_some() && task.attempt() == task.attempts && task.attempts > 0);
            let asks = task.assignment.as_ref().is_some_and(|a| !a.open_input.is_empty());
            assert_eq!(asks, task.state == State::InputRequired);
        }
        State::Succeeded | State::Failed | State::Cancelled => {
            assert!(task.due().is_none() && task.retry_at.is_none() && task.confirm_by.is_none());
            let times = [Some(task.created_at), task.ready_at, task.started_at];
            assert!(times.into_iter().flatten().all(|time| time <= task.ended_at.unwrap()));
        }
    }
    assert!(task.lost.is_none() || matches!(task.state, State::Pending | State::Queued));
    if task.state.is_on_worker() {
        let waits_for_person = task.state == State::InputRequired && task.confirm_by.is_none();
        assert_eq!(task.due().is_some(), !waits_for_person, "{task:?}");
        let stopping = task.assignment.as_ref().is_some_and(|a| a.stopping.is_some() && !a.work_ended);
        assert_eq!(task.confirm_by.is_some(), stopping || task.desired == Desired::Cancelled);
    }
    budgets(task, uncounted);
    round_trip(task);
}

fn budgets(task: &Task, uncounted: u32) {
    let (most, failed) = (task.retry.max_attempts.max(1), task.state == State::Failed);
    assert!(task.failures < most || (task.failures == most && failed), "too many failures");
    assert!(task.waits <= MAX_WAITS);
    let losses = task.retry.max_worker_losses + u32::from(failed);
    assert!(task.blamed_losses() <= losses, "a task beyond its limit of lost workers continues");
    let ended = task.failures + task.waits + task.worker_losses + task.hand_backs + uncounted;
    let on_worker = 1;
    assert!(task.attempts <= ended + on_worker);
    assert!(u64::from(task.attempts) <= task.fence.0, "an attempt without a fence");
}

/// An untouched task comes to rest after a few ticks, each with an effect.
fn never_spins(task: &Task) {
    let mut task = task.clone();
    let mut looks = 0;
    while let Some(due) = task.due() {
        let before = task.clone();
        task.apply(Command::TICK, due).unwrap();
        let later = task.due().is_none_or(|next: Timestamp| next > due);
        assert!(task.state != before.state || later, "it spins: {before:?}");
        looks += 1;
        assert!(looks <= 8, "it comes to no rest: {task:?}");
    }
    assert!(!task.state.is_on_worker() || task.state == State::InputRequired);
}

/// Every stored form decodes to the same record.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value);
    let packed = rmp_serde::to_vec_named(value).unwrap();
    assert_eq!(&rmp_serde::from_slice::<T>(&packed).unwrap(), value);
}
