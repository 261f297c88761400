//! Parts of messages on their way to the control plane, for callers that follow an attempt. They are sent when all that came before them is
//! durable, and dropped with the connection.

use rota_proto::v1::MessageDelta;
use rota_proto::worker::v1::{Follow, StreamedMessage, session_request::Kind};

use super::attempt::{AttemptEvent, AttemptKey};
use super::handle::AttemptHandle;
use super::worker::Worker;

impl AttemptHandle {
    /// Whether parts of messages are sent now: a caller follows, and has all that came before.
    pub(super) fn streams(&self) -> bool {
        self.deltas.is_followed() && self.lock().outbox.is_acked()
    }

    /// Sends the next part of a message. Cancel safe.
    pub(super) async fn stream(&self) {
        let delta = self.deltas.next().await;
        // Fails only when the worker is exiting.
        let _ = self.notifications.send(AttemptEvent::Streamed(self.key.clone(), delta));
    }

    /// Begins or ends the streaming of messages.
    pub(super) fn set_followed(&self, followed: bool) {
        self.deltas.set_followed(followed);
        self.changed.notify_one();
    }
}

impl Worker {
    pub(super) fn follow(&self, follow: &Follow) {
        let key = AttemptKey { task: follow.task_id.as_str().into(), fence: follow.fence };
        if let Some(entry) = self.attempts.get(&key) {
            entry.handle.set_followed(follow.followed);
        }
    }

    /// Sends a part of a message, unless the connection was lost since: the log has the whole of it.
    pub(super) fn stream(&mut self, key: &AttemptKey, delta: MessageDelta) {
        if self.disconnected_at.is_none() && self.attempts.contains_key(key) {
            let (task_id, fence, delta) = (key.task.to_string(), key.fence, Some(delta));
            self.outgoing.push_message(Kind::Streamed(StreamedMessage { task_id, fence, delta }));
        }
    }
}
