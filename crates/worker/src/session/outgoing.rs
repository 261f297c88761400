//! Send queue of a session: first in, first out. Holds attempts by key, so that whatever an attempt
//! has produced by the time its turn comes is sent in one message.

use std::collections::VecDeque;

use rota_proto::worker::v1::session_request::Kind;

use super::attempt::AttemptKey;

pub(super) enum Outgoing {
    Message(Kind),
    /// The next report or the result of this attempt, built when it is sent.
    Attempt(AttemptKey),
}

#[derive(Default)]
pub(super) struct OutgoingQueue(VecDeque<Outgoing>);

impl OutgoingQueue {
    pub(super) fn push_message(&mut self, message: Kind) {
        self.0.push_back(Outgoing::Message(message));
    }

    pub(super) fn push_attempt(&mut self, key: AttemptKey) {
        self.0.push_back(Outgoing::Attempt(key));
    }

    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
