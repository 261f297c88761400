//! What must be true after every step, whatever was asked.

use std::fmt::Debug;

use rota_core::retry::MAX_WAITS;
use rota_core::task::{
    Body, Command, Desired, Event, New, Rejected, Reply, State, StateChange, Task, Transition, WorkerRef,
};
use rota_core::usage::Usage;
use rota_core::{Fence, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::life::Life;

/// Somebody who has seen the whole life.
#[derive(Debug, Default)]
pub(super) struct Witness {
    cancelled: bool,
    successes: u32,
    results: u32,
    ends: u32,
}

impl Witness {
    pub(super) fn birth(new: New) -> (Life, Self) {
        let life = Life::new(new);
        let mut witness = Self { cancelled: life.task.desired == Desired::Cancelled, ..Self::default() };
        let first = life.log.first().unwrap();
        assert_eq!(first.log_seq, 1);
        assert!(
            matches!(&first.body, Body::State(StateChange { from: None, to: State::Pending, reason, .. })
            if reason == "created")
        );
        numbered(&life.log, 0, &life.task);
        linked(&life.log[1..], State::Pending, &life.task);
        witness.ends += u32::from(life.state().is_final());
        record(&life.task);
        (life, witness)
    }

    pub(super) fn sees(
        &mut self,
        before: &Task,
        command: &Command,
        done: &Result<Transition, Rejected>,
        life: &Life,
    ) {
        let after = &life.task;
        let Ok(done) = done else {
            assert_eq!(before, after, "a refused command has left traces");
            return;
        };
        numbered(&done.events, before.log_seq, after);
        linked(&done.events, before.state, after);
        done.events.iter().for_each(round_trip);
        fences(before, command, after);
        if is_foreign(before, command) {
            let same = Task { log_seq: before.log_seq, stale_noted: before.stale_noted, ..after.clone() };
            assert_eq!(before, &same, "a foreign word counted: {command:?}");
        }
        if before.state.is_final() {
            finality(before, command, done, after);
        }
        if done.reply == Reply::Stale {
            let same = Task { log_seq: before.log_seq, stale_noted: before.stale_noted, ..after.clone() };
            assert_eq!(before, &same, "a stale word has changed something");
        }
        self.ending(before, command, done, after);
        usage_grows(&before.total_usage(), &after.total_usage());
        let counts = |task: &Task| [task.attempts, task.failures, task.waits, task.worker_losses];
        assert!(counts(before).iter().zip(counts(after)).all(|(old, new)| *old <= new), "a count fell");
        record(after);
        never_spins(after);
    }

    fn ending(&mut self, before: &Task, command: &Command, done: &Transition, after: &Task) {
        let cancels = matches!(command, Command::Update { desired: Some(Desired::Cancelled), .. });
        self.cancelled |= cancels && !before.state.is_final();
        assert_eq!(done.ended, !before.state.is_final() && after.state.is_final());
        self.ends += u32::from(done.ended);
        self.results += u32::from(done.result.is_some());
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

/// Events have the next numbers, and the record knows the last.
fn numbered(events: &[Event], from: u64, after: &Task) {
    for (event, seq) in events.iter().zip(from + 1..) {
        assert_eq!(event.log_seq, seq);
    }
    assert_eq!(after.log_seq, from + events.len() as u64);
}

/// Each step of the log begins where the last one ended, and the last ends where the record stands.
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

/// Whose word a command is, by which fence, and whether it also counts from a later session.
fn word(command: &Command) -> Option<(&WorkerRef, Option<Fence>, bool)> {
    match command {
        Command::Accept(held)
        | Command::Reject { held, .. }
        | Command::Report { held, .. }
        | Command::Finish { held, .. } => Some((&held.by, Some(held.fence), false)),
        Command::Resume { by, fence } => Some((by, Some(*fence), true)),
        Command::LoseWorker { session, .. } => Some((session, None, true)),
        _ => None,
    }
}

/// Whether it is said by or of somebody who has not the live assignment, or not in its session.
fn is_foreign(task: &Task, command: &Command) -> bool {
    let Some((by, fence, also_later)) = word(command) else { return false };
    let lives = task.assignment.as_ref().is_some_and(|live| {
        by.worker == live.worker
            && fence.is_none_or(|fence| fence == task.fence)
            && (by.epoch == live.epoch || (also_later && by.epoch > live.epoch))
    });
    !lives
}

fn fences(before: &Task, command: &Command, after: &Task) {
    let given = u64::from(matches!(command, Command::Assign { .. }));
    assert_eq!(after.fence.0, before.fence.0 + given);
    assert!(after.stale_noted >= before.stale_noted && after.stale_noted <= after.fence);
}

/// Of an ended task only its labels change, and a late result is noted.
fn finality(before: &Task, command: &Command, done: &Transition, after: &Task) {
    let same = Task {
        labels: before.labels.clone(),
        log_seq: before.log_seq,
        stale_noted: before.stale_noted,
        ..after.clone()
    };
    assert_eq!(before, &same);
    for event in &done.events {
        match &event.body {
            Body::Change { fields, .. } => assert_eq!(fields, &["labels"]),
            Body::Notice { code, .. } => assert_eq!(code, "stale_result"),
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

/// What is true of any record by itself.
fn record(task: &Task) {
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
    if task.state.is_on_worker() {
        assert!(task.due().is_some(), "nobody will look after it");
        assert_eq!(task.confirm_by.is_some(), task.desired == Desired::Cancelled);
    }
    budgets(task);
    round_trip(task);
}

fn budgets(task: &Task) {
    let (most, failed) = (task.retry.max_attempts.max(1), task.state == State::Failed);
    assert!(task.failures < most || (task.failures == most && failed), "too many failures");
    assert!(task.waits <= MAX_WAITS);
    let losses = task.retry.max_worker_losses + u32::from(failed);
    assert!(task.worker_losses <= losses, "a task that kills workers goes on");
    let on_worker = 1;
    assert!(task.attempts <= task.failures + task.waits + task.worker_losses + on_worker);
    assert!(u64::from(task.attempts) <= task.fence.0, "an attempt without a fence");
}

/// A task that nobody touches comes to rest after a few looks at the clock, each with an effect.
fn never_spins(task: &Task) {
    let mut task = task.clone();
    let mut looks = 0;
    while let Some(due) = task.due() {
        let before = task.clone();
        task.apply(Command::Tick, due).unwrap();
        let later = task.due().is_none_or(|next: Timestamp| next > due);
        assert!(task.state != before.state || later, "it spins: {before:?}");
        looks += 1;
        assert!(looks <= 8, "it comes to no rest: {task:?}");
    }
    assert!(!task.state.is_on_worker());
}

/// Every form in which it is kept says the same.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value);
    let packed = rmp_serde::to_vec_named(value).unwrap();
    assert_eq!(&rmp_serde::from_slice::<T>(&packed).unwrap(), value);
}
