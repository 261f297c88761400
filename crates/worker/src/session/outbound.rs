//! What the worker sends: in which order, and gathered how. Whatever an attempt has said while the
//! stream was busy goes out in one message.

use rota_proto::worker::v1::{Hello, Report, RunningAttempt, SessionRequest, session_request::Kind};

use super::attempt::Key;
use super::shared::Why;
use super::worker::Worker;

/// About the largest report.
const MAX_REPORT: usize = 256 << 10;
/// The protocol's version.
const PROTOCOL: i32 = 1;

/// Something to send.
#[expect(clippy::large_enum_variant, reason = "most are messages, and live for microseconds")]
pub(super) enum Pending {
    /// This.
    Message(Kind),
    /// Whatever the attempt has to say by then.
    Attempt(Key),
}

impl Worker {
    /// Says who this is and what it has.
    pub(super) fn hello(&self) -> Hello {
        let running = self.attempts.iter().map(|(key, entry)| RunningAttempt {
            task_id: key.task.to_string(),
            fence: key.fence,
            last_attempt_seq: entry.shared.lock().outbox.last(),
            last_input_seq: entry.last_input,
        });
        let options = &self.options;
        Hello {
            protocol_version: PROTOCOL,
            namespace: options.namespace.clone(),
            agent: options.agent.clone(),
            worker: options.worker.clone(),
            instance: options.instance.clone(),
            slots: i32::try_from(options.slots.max(1)).unwrap_or(i32::MAX),
            capabilities: options.capabilities.clone(),
            running: running.collect(),
            version: options.version.clone(),
            runtime_version: options.runtime_version.clone(),
            draining: self.draining,
            isolated_task: options.isolated_task.clone(),
            last_epoch: self.epoch.unwrap_or_default(),
        }
    }

    /// Queues what an attempt has to say, once.
    pub(super) fn queue(&mut self, key: &Key) {
        if let Some(entry) = self.attempts.get_mut(key)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.pending.push_back(Pending::Attempt(key.clone()));
        }
    }

    /// The next message, if there is one.
    pub(super) fn next_message(&mut self) -> Option<SessionRequest> {
        while let Some(next) = self.pending.pop_front() {
            let kind = match next {
                Pending::Message(kind) => Some(kind),
                Pending::Attempt(key) => self.say(key),
            };
            if kind.is_some() {
                return Some(SessionRequest { kind });
            }
        }
        None
    }

    /// What an attempt has to say: its next events, and when all are sent, its result.
    fn say(&mut self, key: Key) -> Option<Kind> {
        let entry = self.attempts.get_mut(&key)?;
        entry.queued = false;
        let mut state = entry.shared.lock();
        state.noted = false;
        if state.why == Some(Why::Stale) {
            // It may have said more since.
            state.outbox.forget();
        }
        let batch = state.outbox.next(MAX_REPORT);
        let (more, all, last) = (state.outbox.has_more(), state.outbox.is_sent(), state.outbox.last());
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
        let mut result = entry.result.as_deref()?.clone();
        result.last_attempt_seq = last;
        Some(Kind::Result(result))
    }
}
