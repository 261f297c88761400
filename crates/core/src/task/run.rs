//! Attempts: assignment, acceptance, reports, completion, and loss of the worker.

use std::time::Duration;

use super::apply::Step;
use super::{
    Assignment, AttemptRef, Body, Completion, Desired, EventEffect, Item, Limits, MAX_LOGGED_BYTES,
    MAX_LOGGED_BYTES_OF_TASK, MAX_LOGGED_REPORTS, Own, Refusal, Rejected, Reply, RuntimeSession, State,
    StateChange, Storing, WorkerRef,
};
use crate::failure::{Class, Failure, Recovery, Severity};
use crate::quota::ModelAccess;
use crate::retry::{self, Decision};
use crate::usage::Usage;
use crate::{AgentName, Fence, Timestamp};

/// Wait after the second consecutive assignment that was not accepted; doubles with each further one.
pub(super) const INITIAL_REJECTION_BACKOFF: Duration = Duration::from_secs(1);
pub(super) const MAX_REJECTION_BACKOFF: Duration = Duration::from_secs(30);
/// Waits after which further ones are hardly longer.
const LONGEST_BACKOFF_AFTER: u32 = 10;

/// Validity of an attempt reference.
pub(super) enum FenceCheck {
    Live,
    /// Names an earlier assignment, or another session.
    Stale,
}

impl Step<'_> {
    pub(super) fn check_fence(&self, attempt: &AttemptRef) -> Result<FenceCheck, Rejected> {
        if attempt.fence > self.task.fence || attempt.fence == Fence(0) {
            return Err(Rejected::UnknownFence(attempt.fence));
        }
        let live = self.task.assignment.as_ref().is_some_and(|assignment| {
            attempt.fence == self.task.fence
                && assignment.worker == attempt.by.worker
                && assignment.epoch == attempt.by.epoch
        });
        Ok(if live { FenceCheck::Live } else { FenceCheck::Stale })
    }

    pub(super) fn assign(
        &mut self,
        to: WorkerRef,
        agent: AgentName,
        span_id: [u8; 8],
        mut defaults: Limits,
    ) -> Result<(), Rejected> {
        let task = &mut *self.task;
        if task.state != State::Queued {
            return Err(Rejected::State(task.state));
        }
        task.fence = Fence(task.fence.0 + 1);
        task.lost = None;
        if task.agent().is_none() {
            // If it is not accepted, the task waits for any agent again, hence not with this agent's queue timeout.
            defaults.queue_timeout = None;
        }
        task.defaults = defaults;
        let change = StateChange::new(State::Assigned, "assigned").worker(&to.worker);
        task.assignment = Some(Assignment {
            worker: to.worker,
            agent: Some(agent),
            epoch: to.epoch,
            attempt: task.attempts + 1,
            at: self.now,
            started_at: None,
            span_id,
            // A delivery shows nothing about the agent's credentials either.
            own: Own { credentials: task.own.credentials || task.has_secrets || task.delivers(), ..task.own },
            model: ModelAccess { credential: task.credential_in_use(), ..ModelAccess::default() },
            attempt_seq: 0,
            logged_bytes: 0,
            unlogged: false,
            reserved: 0,
            usage: Usage::default(),
            inputs_before: task.inputs,
            open_input: Vec::new(),
            paused_at: None,
            paused: Duration::ZERO,
            reported_at: None,
            resumed_at: None,
            jumped_at: None,
            work_ended: false,
            storing: None,
            stopping: None,
        });
        self.go(change);
        Ok(())
    }

    pub(super) fn accept(&mut self, attempt: &AttemptRef) -> Result<(), Rejected> {
        match self.check_fence(attempt)? {
            FenceCheck::Stale => self.reply(Reply::Stale),
            FenceCheck::Live => self.start(),
        }
        Ok(())
    }

    /// Starts the attempt, unless it has started. Every report on an attempt implies its acceptance.
    pub(super) fn start(&mut self) {
        if self.task.state == State::Assigned {
            let task = &mut *self.task;
            task.attempts += 1;
            task.refusals = 0;
            task.refusal = None;
            task.unaccepted_losses = 0;
            task.avoid = None;
            task.progress = None;
            task.started_at = Some(task.started_at.unwrap_or(self.now));
            let mut change = StateChange::new(State::Running, "started");
            let delivers = task.delivers();
            if let Some(assignment) = &mut task.assignment {
                assignment.started_at = Some(self.now);
                assignment.pause(delivers, self.now);
                change.worker = Some(assignment.worker.clone());
            }
            if delivers {
                // A delivery is no work: its clock stands, and a stop that was requested before is no reason to give it up.
                task.end_work(None);
            }
            self.go(change);
        }
    }

    pub(super) fn reject(&mut self, attempt: &AttemptRef, reason: &str) -> Result<(), Rejected> {
        match self.check_fence(attempt)? {
            FenceCheck::Stale => self.reply(Reply::Stale),
            FenceCheck::Live if self.task.state == State::Assigned => self.requeue("rejected", reason),
            FenceCheck::Live if self.task.assignment.as_ref().is_some_and(|a| a.attempt_seq > 0) => {
                return Err(Rejected::State(self.task.state));
            }
            // The worker's session broke before it could reject it, and its next one has started the attempt.
            FenceCheck::Live => {
                self.task.avoid = self.task.assignment.as_ref().map(|assignment| assignment.worker.clone());
                self.hand_back(None, reason, 0.0);
            }
        }
        Ok(())
    }

    /// Returns an unaccepted task to the queue without using an attempt. From the second time in a row on there is a
    /// growing wait, so that a worker that always rejects does not spin.
    pub(super) fn requeue(&mut self, reason: &'static str, message: &str) {
        let task = &mut *self.task;
        let Some(assignment) = &task.assignment else { return };
        let (worker, jitter) = (&assignment.worker, assignment.jitter());
        task.refusals += 1;
        task.avoid = Some(worker.clone());
        task.refusal = Some(Refusal { worker: worker.clone(), reason: message.to_owned() });
        if task.refusals > 1 {
            let wait =
                retry::backoff(INITIAL_REJECTION_BACKOFF, MAX_REJECTION_BACKOFF, task.refusals - 1, jitter);
            task.retry_at = Some(self.now + wait);
        }
        let worker = Some(worker.clone());
        let mut change = StateChange::new(State::Pending, reason).message(message);
        change.worker = worker;
        change.retry_at = task.retry_at;
        self.go(change);
        self.settle();
    }

    pub(super) fn report(
        &mut self,
        attempt: &AttemptRef,
        first: u64,
        items: Vec<Item>,
    ) -> Result<(), Rejected> {
        if let FenceCheck::Stale = self.check_fence(attempt)? {
            self.late_report(attempt, &items);
            return Ok(());
        }
        let known = self.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
        if first == 0 || first > known + 1 {
            return Err(Rejected::Gap { expected: known + 1, got: first });
        }
        // Entries that the log already has were sent again.
        let old = usize::try_from(known + 1 - first).unwrap_or(usize::MAX);
        self.check_questions(items.get(old..).unwrap_or_default())?;
        self.start();
        let Some(assignment) = &mut self.task.assignment else { return Ok(()) };
        let before = assignment.reported_at.replace(self.now).or(assignment.started_at).unwrap_or(self.now);
        for item in items.into_iter().skip(old) {
            self.report_item(item, before);
        }
        self.check_budget();
        let seq = self.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
        self.reply(Reply::Reported(seq));
        Ok(())
    }

    /// Applies an entry of a report. It happened after `before`, whatever the worker's clock shows, and may have waited for
    /// a connection since.
    fn report_item(&mut self, item: Item, before: Timestamp) {
        let Some(assignment) = &mut self.task.assignment else { return };
        let was_unlogged = assignment.unlogged;
        assignment.attempt_seq += if let EventEffect::Lost(events) = item.effect { events } else { 1 };
        assignment.logged_bytes += item.payload.len() as u64;
        let is_full = assignment.is_log_full(self.task.logged_bytes);
        assignment.unlogged = is_full || item.payload.is_empty();
        let unlogged = assignment.unlogged;
        let stands = item.effect == EventEffect::Notice && assignment.paused_at.is_some();
        let held_up = stands || item.effect == EventEffect::HeldUp;
        match item.effect {
            EventEffect::None | EventEffect::HeldUp | EventEffect::Notice | EventEffect::Lost(_) => {}
            EventEffect::Progress(mut progress) => {
                // `max` turns NaN, which no record could carry, into 0.
                progress.fraction = progress.fraction.clamp(0.0, 1.0).max(0.0);
                self.task.progress = Some(progress);
            }
            EventEffect::Usage(usage) => self.record_turn(&usage),
            EventEffect::InputRequested { request, payload } => {
                // A repeated request replaces the first: one answer resolves it.
                assignment.open_input.retain(|(id, _)| *id != request);
                assignment.open_input.push((request, payload));
            }
            EventEffect::WorkEnded(storing) => {
                let since = self.now;
                self.task.end_work(storing.map(|outlives_worker| Storing { since, outlives_worker }));
            }
            EventEffect::ModelWorked => self.out.model_worked = true,
            EventEffect::InputResolved(request) => assignment.open_input.retain(|(id, _)| *id != request),
        }
        if !unlogged {
            self.log(item.at, Body::Report(item.payload));
        } else if !was_unlogged {
            let message = match is_full {
                true => format!(
                    "the log takes at most {MAX_LOGGED_REPORTS} reports and {} MiB of an attempt, and {} MiB of a task; \
                     later ones are left out",
                    MAX_LOGGED_BYTES >> 20,
                    MAX_LOGGED_BYTES_OF_TASK >> 20
                ),
                false => "the volume of the store is nearly full; reports are left out until it has room"
                    .to_owned(),
            };
            self.log(self.now, Body::Notice { severity: Severity::Medium, code: "log_full".into(), message });
        }
        self.match_input_state(item.at.max(before).min(self.now), held_up);
    }

    pub(super) fn finish(
        &mut self,
        attempt: &AttemptRef,
        last: u64,
        completion: Completion,
        usage: Option<Usage>,
        session: String,
        jitter: f64,
    ) -> Result<(), Rejected> {
        if let FenceCheck::Stale = self.check_fence(attempt)? {
            // The worker missed the reply to the accepted success and repeats it: no late result.
            if !(matches!(completion, Completion::Succeeded(_)) && self.task.has_succeeded_by(attempt)) {
                if let Some(usage) = &usage {
                    self.record_late_usage(attempt, usage);
                }
                // An end on request is no result.
                if !matches!(completion, Completion::Stopped { .. }) {
                    self.note_stale(attempt);
                }
                self.reply(Reply::Stale);
            }
            return Ok(());
        }
        // Items that are not in the log yet would be lost with the end.
        let known = self.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
        if last > known {
            return Err(Rejected::Gap { expected: known + 1, got: last });
        }
        self.start();
        let task = &mut *self.task;
        task.stale_noted = attempt.fence;
        // An attempt that ended without a session leaves an earlier attempt's for resumption.
        if let Some(assignment) = task.assignment.as_ref().filter(|_| !session.is_empty()) {
            task.session = Some(RuntimeSession { worker: assignment.worker.clone(), session });
        }
        if let Some(usage) = usage {
            self.record_final_usage(&usage);
        }
        let task = &mut *self.task;
        let stopping = task.assignment.as_mut().and_then(|assignment| assignment.stopping.take());
        if let Some(stopping) = stopping
            && task.desired != Desired::Cancelled
            && !matches!(completion, Completion::Succeeded(_) | Completion::Undelivered { .. })
        {
            self.end_stopped(*stopping, completion);
            return Ok(());
        }
        match completion {
            // A cancelled task never succeeds: the caller was promised its cancellation.
            _ if task.desired == Desired::Cancelled => {
                let by = if let Completion::Stopped { by } = &completion { by.as_str() } else { "itself" };
                self.go(StateChange::new(State::Cancelled, "cancelled").message(format!("ended by {by}")));
            }
            Completion::Succeeded(result) => {
                task.has_result = result.is_some();
                task.result_size = result.as_ref().map_or(0, |result| result.len() as u64);
                if let Some(progress) = &mut task.progress {
                    progress.fraction = 1.0;
                }
                self.out.result = result;
                self.go(StateChange::new(State::Succeeded, "succeeded"));
            }
            Completion::Failed(failure) if failure.class == Class::WorkerLost => {
                self.hand_back(None, &failure.message, jitter)
            }
            Completion::Undelivered { failure, result } => self.undelivered(failure, Some(result), jitter),
            // The work is done and kept, whatever an attempt lacks that only delivers it: what is missing may come back. Only what
            // the host has refused is final.
            Completion::Failed(failure) if task.delivers() && failure.class != Class::Delivery => {
                self.undelivered(failure.of_kept_work(), None, jitter);
            }
            Completion::Failed(failure) => self.failed(failure, jitter),
            Completion::Stopped { by } => {
                let message = format!("the worker stopped the attempt by {by} without a request");
                self.hand_back(None, &message, jitter)
            }
        }
        Ok(())
    }

    fn failed(&mut self, failure: Failure, jitter: f64) {
        let task = &mut *self.task;
        if let Some(assignment) = task.assignment.as_mut().filter(|one| failure.of_storage && !one.work_ended)
        {
            // It has only waited for files that it was to be given.
            assignment.undo_work();
        }
        let waits = task.waits + 1;
        let failures = task.failures + 1;
        let recovery = failure.class.recovery();
        let own = task.assignment.as_ref().map(|assignment| assignment.own).unwrap_or_default();
        let mut decision = task.retry.decide(&failure, failures, waits, own, jitter);
        if recovery == Recovery::Elsewhere && std::mem::replace(&mut task.start_failed, true) {
            decision = Decision::Stop;
        }
        let wait = match decision {
            Decision::Retry(wait) => {
                task.failures = failures;
                task.own_failures += u32::from(failure.class.may_be_of_model());
                wait
            }
            Decision::Wait(wait) => {
                // However long the agent's credentials are invalid, waits for the model are left.
                let endless = recovery == Recovery::Credentials && own.authenticates_as_agent();
                let limit = if endless { LONGEST_BACKOFF_AFTER } else { u32::MAX };
                // Nor does the end of a limit that is known count.
                let waits = if failure.waits_free() { task.waits } else { waits };
                task.waits = waits.min(task.waits.max(limit));
                wait
            }
            Decision::Stop => {
                task.failures = failures;
                let message = failure.message.clone();
                return self.go(StateChange::new(State::Failed, "failed").message(message).failure(failure));
            }
        };
        let worked =
            task.assignment.as_ref().map_or(Duration::ZERO, |assignment| assignment.worked(self.now));
        if task.time_left() <= worked {
            let message =
                format!("{}; the total timeout leaves no time for another attempt", failure.message);
            return self.go(StateChange::new(State::Failed, "timeout").message(message).failure(failure));
        }
        task.retry_at = Some(self.now + wait);
        task.avoid = (task.assignment.as_ref())
            // A program that the task brought along crashes by itself.
            .filter(|assignment| {
                failure.may_be_of_worker() && !(assignment.own.program && failure.class == Class::Crash)
            })
            .map(|assignment| assignment.worker.clone());
        let mut change =
            StateChange::new(State::Pending, "retry").message(failure.message.clone()).failure(failure);
        change.retry_at = task.retry_at;
        self.go(change);
        self.ask_for_attention(failures);
        self.escalate();
        self.settle();
    }

    pub(super) fn resume(&mut self, by: WorkerRef, fence: Fence) -> Result<(), Rejected> {
        let task = &mut *self.task;
        match &mut task.assignment {
            Some(assignment)
                if fence == task.fence && assignment.worker == by.worker && assignment.epoch <= by.epoch =>
            {
                assignment.epoch = by.epoch;
                assignment.resumed_at = Some(self.now);
                self.start();
                let seq = self.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
                self.reply(Reply::Reported(seq));
            }
            _ => self.return_attempt(by, fence),
        }
        Ok(())
    }
}
