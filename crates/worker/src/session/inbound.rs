//! What the control plane says, and what the worker does about it. Nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use rota_proto::v1::Severity;
use rota_proto::worker::v1::resume_attempt::Kind as Resume;
use rota_proto::worker::v1::session_response::Kind as Received;
use rota_proto::worker::v1::{Accept, Assign, Cancel, Input, Reject, ResumeAttempt, session_request::Kind};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::Instrument;

use super::attempt::{self, GRACE, Job, Key, until};
use super::outbound::Pending;
use super::outbox::{Bounds, Outbox};
use super::shared::{Shared, Why};
use super::spans;
use super::worker::{Entry, Worker};
use crate::runtimes::notice;
use crate::workspace::is_name;

/// Inputs that may wait for a runtime.
const INPUTS: usize = 64;

impl Worker {
    pub(super) fn receive(&mut self, received: Received) {
        match received {
            Received::Assign(assign) => self.assign(assign),
            Received::ReportAck(ack) => {
                let key = key(&ack.task_id, ack.fence);
                if ack.stale {
                    self.abandon(&key, "its fence is old")
                } else {
                    self.acked(&key, ack.attempt_seq)
                }
            }
            Received::ResultAck(ack) => {
                let key = key(&ack.task_id, ack.fence);
                match self.attempts.get(&key) {
                    Some(entry) if entry.ended => {
                        let durable = || tracing::debug!(accepted = ack.accepted, "the result is durable");
                        entry.span.in_scope(durable);
                        self.attempts.remove(&key);
                        // Another try gets another worker, as fresh as this one was.
                        if !self.options.isolated_task.is_empty() {
                            self.drain("the task that it was started for has its result");
                        }
                    }
                    Some(_) => self.abandon(&key, "it already has a result"),
                    None => {}
                }
            }
            Received::Cancel(cancel) => self.cancel(cancel),
            Received::Input(input) => self.input(input),
            Received::Drain(drain) => self.drain(&drain.reason),
            // Heard is heard; a second Welcome means nothing.
            Received::Heartbeat(_) | Received::Welcome(_) => {}
        }
    }

    fn assign(&mut self, assign: Assign) {
        let key = key(&assign.task_id, assign.fence);
        if self.attempts.contains_key(&key) {
            return;
        }
        let kind = assign.spec.as_ref().and_then(|spec| spec.runtime.as_ref()?.kind.as_ref());
        let runtime = self.options.runtimes.of(kind).cloned();
        let refusal = if self.draining {
            "the worker takes nothing new"
        } else if assign.deadline.as_ref().is_some_and(|at| until(at).is_zero()) {
            "its deadline was over when it came, by the worker's clock"
        } else if self.running >= self.options.slots.max(1) {
            "no slot is free"
        } else if !is_name(&assign.task_id) {
            "the task's id cannot be used in a path"
        } else if runtime.is_none() {
            "the worker has no such runtime"
        } else {
            ""
        };
        let span = spans::logged(&assign, &self.options.worker);
        let (task_id, fence) = (assign.task_id.clone(), assign.fence);
        let Some(runtime) = runtime.filter(|_| refusal.is_empty()) else {
            return span.in_scope(|| self.reject(task_id, fence, refusal));
        };
        self.pending.push_back(Pending::Message(Kind::Accept(Accept { task_id, fence })));

        let outbox = Outbox::new(self.context.root.state().to_owned(), Bounds::default());
        let shared = Arc::new(Shared::new(outbox));
        let (inputs, received) = mpsc::channel(INPUTS);
        let job = Job { key: key.clone(), assign, runtime, shared: Arc::clone(&shared), inputs: received };
        let run = attempt::run(Arc::clone(&self.context), job).instrument(span.clone());
        spawn("attempt", OnExit::Done, run);
        self.running += 1;
        self.attempts.insert(key, Entry::new(shared, inputs, span));
    }

    fn reject(&mut self, task_id: String, fence: i64, reason: &str) {
        tracing::warn!(task = task_id, fence, "an assignment is rejected: {reason}");
        let reject = Reject { task_id, fence, reason: reason.to_owned() };
        self.pending.push_back(Pending::Message(Kind::Reject(reject)));
    }

    /// Events up to `seq` are durable.
    fn acked(&mut self, key: &Key, seq: i64) {
        let Some(entry) = self.attempts.get(key) else { return };
        let mut state = entry.shared.lock();
        let was_full = state.outbox.is_full();
        entry.span.in_scope(|| state.outbox.ack(seq));
        if was_full && !state.outbox.is_full() {
            entry.shared.changed.notify_one();
        }
        drop(state);
        self.queue(key);
    }

    /// It no longer counts: it is ended, and all that is still said of it is that it has. If it has ended before,
    /// that is its late result: it is refused, and the task's log tells of it.
    fn abandon(&mut self, key: &Key, why: &str) {
        let Some(entry) = self.attempts.get(key) else { return };
        entry.span.in_scope(|| tracing::warn!("an attempt is abandoned: {why}"));
        if !entry.ended {
            entry.shared.request(Why::Stale, GRACE);
        } else if entry.result.is_some() && !entry.result_sent {
            entry.shared.lock().outbox.forget();
            self.queue(key);
        } else {
            self.attempts.remove(key);
        }
    }

    fn cancel(&mut self, cancel: Cancel) {
        let key = key(&cancel.task_id, cancel.fence);
        let Some(entry) = self.attempts.get(&key) else {
            // Said at once: else the control plane would wait for its end until a timeout.
            return self.reject(cancel.task_id, cancel.fence, "the worker does not have it");
        };
        entry.span.in_scope(|| tracing::info!(reason = cancel.reason, "an attempt is cancelled"));
        let grace = cancel.grace.and_then(|grace| Duration::try_from(grace).ok()).unwrap_or(GRACE);
        entry.shared.request(Why::Cancelled, grace);
    }

    fn input(&mut self, input: Input) {
        let key = key(&input.task_id, input.fence);
        let (Some(entry), Some(given)) = (self.attempts.get_mut(&key), input.input) else { return };
        if input.input_seq <= entry.last_input {
            return;
        }
        let request = given.request_id.clone();
        match entry.inputs.try_send(given) {
            Ok(()) => {
                entry.last_input = input.input_seq;
                entry.shared.answered(&request);
            }
            Err(TrySendError::Full(_)) => {
                let text = "an input was dropped: the agent has not taken those before it";
                let event = rota_proto::v1::Event {
                    kind: Some(notice(Severity::Medium, "input_dropped", text)),
                    ..rota_proto::v1::Event::default()
                };
                entry.last_input = input.input_seq;
                entry.shared.push(event);
                self.queue(&key);
            }
            // It is ending.
            Err(TrySendError::Closed(_)) => {}
        }
    }

    /// A new session: what goes on and what does not. Nothing counts as sent on it yet.
    pub(super) fn resume(&mut self, resume: Vec<ResumeAttempt>) {
        for (key, entry) in &mut self.attempts {
            entry.result_sent = false;
            entry.shared.lock().outbox.resume(0);
            if !std::mem::replace(&mut entry.queued, true) {
                self.pending.push_back(Pending::Attempt(key.clone()));
            }
        }
        for ResumeAttempt { task_id, fence, kind } in resume {
            let key = key(&task_id, fence);
            match kind {
                Some(Resume::ContinueAfter(seq)) => {
                    if let Some(entry) = self.attempts.get(&key) {
                        entry.shared.lock().outbox.resume(seq);
                        entry.shared.changed.notify_one();
                    }
                }
                Some(Resume::Abandon(why)) => self.abandon(&key, &why),
                None => {}
            }
        }
    }
}

fn key(task: &str, fence: i64) -> Key {
    Key { task: task.into(), fence }
}
