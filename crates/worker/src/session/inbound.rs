//! Handlers for messages of the control plane. None of them waits.

use std::sync::Arc;
use std::time::Duration;

use rota_proto::times::DEFAULT_CANCEL_GRACE;
use rota_proto::v1::Severity;
use rota_proto::worker::v1::resume_attempt::Kind as Resume;
use rota_proto::worker::v1::session_response::Kind as Received;
use rota_proto::worker::v1::{Accept, Assign, Cancel, Input, Reject, ResumeAttempt, session_request::Kind};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::Instrument;

use super::attempt::{self, AttemptKey, Job, UNHEARD};
use super::handle::{AttemptHandle, StopReason};
use super::model_access::ModelAccess;
use super::outbox::{Bounds, Outbox};
use super::spans;
use super::time_limits::time_left;
use super::worker::{AttemptEntry, Worker};
use crate::report::notice;
use crate::workspace::is_name;

/// Inputs buffered for a runtime.
const INPUT_BUFFER: usize = 64;

impl Worker {
    pub(super) fn receive(&mut self, received: Received) {
        match received {
            Received::Assign(assign) => self.assign(assign),
            Received::ReportAck(ack) => {
                let key = key(&ack.task_id, ack.fence);
                if ack.stale {
                    self.abandon(&key, "fence is outdated")
                } else {
                    self.apply_ack(&key, ack.attempt_seq)
                }
            }
            Received::ResultAck(ack) => {
                let key = key(&ack.task_id, ack.fence);
                match self.attempts.get(&key) {
                    Some(entry) if entry.ended => {
                        entry.span.in_scope(|| match ack.accepted {
                            true => tracing::debug!("result accepted"),
                            false => tracing::warn!(
                                "result rejected: the attempt was superseded, or its task has ended"
                            ),
                        });
                        self.forget(&key);
                        // A retry gets a fresh worker of its own.
                        if !self.options.isolated_task.is_empty() {
                            self.drain("the task that this worker was started for has its result");
                        }
                    }
                    Some(_) => self.abandon(&key, "the control plane already has a result"),
                    None => {}
                }
            }
            Received::Cancel(cancel) => self.cancel(*cancel),
            Received::Input(input) => self.input(*input),
            Received::Follow(follow) => self.follow(&follow),
            Received::Drain(drain) => self.drain(&drain.reason),
            // Receipt alone counts for a heartbeat; a second Welcome is ignored.
            Received::Heartbeat(_) | Received::Welcome(_) => {}
        }
    }

    fn assign(&mut self, assign: Box<Assign>) {
        let key = key(&assign.task_id, assign.fence);
        if self.attempts.contains_key(&key) {
            return;
        }
        let kind = assign.spec.as_ref().and_then(|spec| spec.runtime.as_ref()?.kind.as_ref());
        let runtime = self.options.runtimes.of(kind).cloned();
        let refusal = if self.draining {
            "the worker is draining and takes nothing new"
        } else if time_left(&assign).is_some_and(|left| left.is_zero()) {
            "the task had no time left on arrival"
        } else if self.running >= self.options.slots.max(1) {
            "no slot is free"
        } else if !is_name(&assign.task_id) {
            "the task id is not usable in a path"
        } else if runtime.is_none() {
            "the worker does not have the runtime"
        } else {
            ""
        };
        let span = spans::attempt_span(&assign, &self.options.worker);
        let Some(runtime) = runtime.filter(|_| refusal.is_empty()) else {
            return span.in_scope(|| self.reject(assign.task_id, assign.fence, refusal));
        };

        let outbox = Outbox::new(self.deps.root.state().to_owned(), Bounds::of_worker(self.options.slots));
        let handle = Arc::new(AttemptHandle::new(outbox, key.clone(), self.deps.events.clone()));
        let (inputs, received) = mpsc::channel(INPUT_BUFFER);
        let checks = attempt::needs_directories(&assign);
        let job = Job { key: key.clone(), assign, runtime, handle: Arc::clone(&handle), inputs: received };
        let deps = Arc::clone(&self.deps);
        if checks {
            spawn("attempt", OnExit::Done, attempt::run_if_ready(deps, job).instrument(span.clone()));
        } else {
            self.accept(key.clone());
            spawn("attempt", OnExit::Done, attempt::run(deps, job).instrument(span.clone()));
        }
        self.running += 1;
        self.attempts.insert(key, AttemptEntry::new(handle, inputs, span));
    }

    pub(super) fn accept(&mut self, key: AttemptKey) {
        let AttemptKey { task, fence } = key;
        let accept = Accept { task_id: task.to_string(), fence, ..Accept::default() };
        self.outgoing.push_message(Kind::Accept(accept));
    }

    /// Reports what the model calls of an attempt use.
    pub(super) fn uses_model(&mut self, key: &AttemptKey, access: ModelAccess) {
        if !access.own {
            self.access.clone_from(&access);
        }
        if let Some(entry) = self.attempts.get_mut(key) {
            entry.access = Some(access);
        }
        self.name_model(key);
    }

    /// Names what the model calls of an attempt use, if that is known: in each session, since a message may be lost with one.
    pub(super) fn name_model(&mut self, key: &AttemptKey) {
        let Some(access) = self.attempts.get(key).and_then(|entry| entry.access.clone()) else { return };
        let ModelAccess { credential, backend, .. } = access;
        let accept = Accept { task_id: key.task.to_string(), fence: key.fence, credential, backend };
        self.outgoing.push_message(Kind::Accept(accept));
    }

    pub(super) fn reject(&mut self, task_id: String, fence: i64, reason: &str) {
        tracing::warn!(task = task_id, fence, reason, "rejecting assignment");
        let reject = Reject { task_id, fence, reason: reason.to_owned() };
        self.outgoing.push_message(Kind::Reject(reject));
    }

    /// Drops events up to `seq`, which are durable in the control plane.
    fn apply_ack(&mut self, key: &AttemptKey, seq: i64) {
        let Some(entry) = self.attempts.get(key) else { return };
        entry.span.in_scope(|| entry.handle.ack(seq));
        self.queue(key);
    }

    /// Abandons a superseded attempt. A running one is ended, and only its end is still reported. A result not
    /// yet sent is sent without events, so that the control plane can refuse it and record that it came late.
    fn abandon(&mut self, key: &AttemptKey, reason: &str) {
        if self.discard_left(key) {
            return;
        }
        let Some(entry) = self.attempts.get(key) else { return };
        entry.span.in_scope(|| tracing::warn!(reason, "abandoning attempt"));
        if !entry.ended {
            entry.handle.request_stop(StopReason::Stale, DEFAULT_CANCEL_GRACE);
        } else if entry.result.is_some() && !entry.result_sent {
            entry.handle.lock().outbox.discard();
            self.queue(key);
        } else {
            self.forget(key);
        }
    }

    fn cancel(&mut self, cancel: Cancel) {
        let key = key(&cancel.task_id, cancel.fence);
        let Some(entry) = self.attempts.get(&key) else {
            // Otherwise the control plane would wait for its end until a timeout.
            return self.reject(cancel.task_id, cancel.fence, "the worker does not have the attempt");
        };
        entry.span.in_scope(|| tracing::info!(reason = cancel.reason, "cancelling attempt"));
        let grace =
            cancel.grace.and_then(|grace| Duration::try_from(grace).ok()).unwrap_or(DEFAULT_CANCEL_GRACE);
        let reason = if cancel.unless_finished { StopReason::Budget } else { StopReason::Cancelled };
        entry.handle.request_stop(reason, grace);
    }

    fn input(&mut self, input: Input) {
        let key = key(&input.task_id, input.fence);
        let (Some(entry), Some(task_input)) = (self.attempts.get_mut(&key), input.input) else { return };
        if input.input_seq <= entry.last_input {
            return;
        }
        let request = task_input.request_id.clone();
        let refusal = match entry.inputs.try_send(task_input) {
            Ok(()) => None,
            Err(TrySendError::Full(_)) => {
                let text = "input dropped: the agent has not read earlier inputs";
                Some(notice(Severity::Medium, "input_dropped", text))
            }
            // What it has left is being stored.
            Err(TrySendError::Closed(_)) if !entry.ended && entry.left.is_none() => {
                Some(notice(Severity::Low, "input_unheard", UNHEARD))
            }
            Err(TrySendError::Closed(_)) => return,
        };
        entry.last_input = input.input_seq;
        // The control plane has closed the question: the time limits must end an agent that waits for the answer.
        entry.handle.resolve_request(&request);
        if refusal.is_some() {
            entry.handle.push(rota_proto::v1::Event { kind: refusal, ..rota_proto::v1::Event::default() });
            self.queue(&key);
        }
    }

    /// Applies the resume instructions of a new session, on which nothing counts as sent yet.
    pub(super) fn resume(&mut self, resume: Vec<ResumeAttempt>) {
        for key in self.attempts.keys().cloned().collect::<Vec<_>>() {
            self.name_model(&key);
        }
        for (key, entry) in &mut self.attempts {
            entry.result_sent = false;
            entry.handle.resume(0);
            if !std::mem::replace(&mut entry.queued, true) {
                self.outgoing.push_attempt(key.clone());
            }
        }
        for ResumeAttempt { task_id, fence, kind } in resume {
            let key = key(&task_id, fence);
            match kind {
                Some(Resume::ContinueAfter(seq)) => {
                    if let Some(entry) = self.attempts.get(&key) {
                        entry.handle.resume(seq);
                    }
                    self.store_left(&key, seq);
                }
                Some(Resume::Abandon(reason)) => self.abandon(&key, &reason),
                None => {}
            }
        }
    }
}

fn key(task: &str, fence: i64) -> AttemptKey {
    AttemptKey { task: task.into(), fence }
}
