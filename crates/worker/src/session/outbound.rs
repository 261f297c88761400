//! Messages to the control plane: Hello, and the reports and result of each attempt. Events that gather
//! while the stream is busy are sent as one report.

use rota_proto::num::to_i32;
use rota_proto::worker::v1::{Hello, Report, RunningAttempt, SessionRequest, session_request::Kind};

use super::attempt::AttemptKey;
use super::handle::StopReason;
use super::outgoing::Outgoing;
use super::worker::Worker;

/// Approximate maximum size of a report.
const MAX_REPORT_BYTES: usize = 256 << 10;
/// Version of the worker protocol. 2: fetches results that an assignment omits.
pub const PROTOCOL_VERSION: i32 = 2;
/// Version that is used with a control plane that does not support the newest.
pub(super) const EARLIEST_VERSION: i32 = 1;

impl Worker {
    /// Builds the Hello of a version, with every attempt that this worker holds.
    pub(super) fn hello(&mut self, protocol_version: i32) -> Hello {
        let running = self.attempts.iter().map(|(key, entry)| RunningAttempt {
            task_id: key.task.to_string(),
            fence: key.fence,
            last_attempt_seq: entry.handle.lock().outbox.last(),
            last_input_seq: entry.last_input,
        });
        let options = &self.options;
        let isolated = self.not_isolated.is_none();
        let status = self.status.borrow_and_update().clone();
        Hello {
            protocol_version,
            namespace: options.namespace.clone(),
            agent: options.agent.clone(),
            worker: options.worker.clone(),
            instance: options.instance.clone(),
            slots: to_i32(options.slots.max(1)),
            capabilities: options.capabilities.clone(),
            running: running.collect(),
            version: options.version.clone(),
            runtime_version: status.runtime_version,
            runtime_missing: status.runtime_missing,
            draining: self.draining,
            isolated_task: options.isolated_task.clone(),
            last_epoch: self.epoch.unwrap_or_default(),
            isolated,
            not_isolated_reason: self.not_isolated.clone().unwrap_or_default(),
            not_ready_reason: status.not_ready_reason,
            not_ready_alone: status.not_ready_alone,
            delivers: true,
            credential: self.access.credential.clone(),
            backend: self.access.backend.clone(),
        }
    }

    /// Announces what this worker reports about its machine, if that has changed.
    pub(super) fn announce_status(&mut self) {
        if self.status.has_changed().unwrap_or_default() {
            let status = self.status.borrow_and_update().clone();
            self.outgoing.push_message(Kind::Status(status));
        }
    }

    /// Queues an attempt for sending, unless it is queued already.
    pub(super) fn queue(&mut self, key: &AttemptKey) {
        if let Some(entry) = self.attempts.get_mut(key)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.outgoing.push_attempt(key.clone());
        }
    }

    /// Returns the next message to send.
    pub(super) fn next_message(&mut self) -> Option<SessionRequest> {
        while let Some(next) = self.outgoing.pop() {
            let kind = match next {
                Outgoing::Message(kind) => Some(kind),
                Outgoing::Attempt(key) => self.attempt_message(key),
            };
            if kind.is_some() {
                return Some(SessionRequest { kind });
            }
        }
        None
    }

    /// Builds an attempt's next report, or its result once all events are sent.
    fn attempt_message(&mut self, key: AttemptKey) -> Option<Kind> {
        let entry = self.attempts.get_mut(&key)?;
        entry.queued = false;
        let mut state = entry.handle.lock();
        state.notified = false;
        if state.stop_reason == Some(StopReason::Stale) {
            // It may have produced more events since it was abandoned.
            state.outbox.discard();
        }
        let batch = state.outbox.next(MAX_REPORT_BYTES);
        let (more, all, last) = (state.outbox.has_more(), state.outbox.is_fully_sent(), state.outbox.last());
        drop(state);
        let unsent_result = entry.result.is_some() && !entry.result_sent;
        if let Some((first_attempt_seq, events)) = batch {
            if more || (all && unsent_result) {
                self.queue(&key);
            }
            let task_id = key.task.to_string();
            return Some(Kind::Report(Report { task_id, fence: key.fence, first_attempt_seq, events }));
        }
        if !(all && unsent_result) {
            return None;
        }
        entry.result_sent = true;
        let mut result = entry.result.clone()?;
        result.last_attempt_seq = last;
        Some(Kind::Result(result))
    }
}
