//! The message that an agent is writing, in parts, for callers that follow it. Parts gather for a while, and are dropped without a
//! follower, or if too many wait: the log has the whole message. Knows nothing of sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rota_proto::num::to_i64;
use rota_proto::v1::{MessageDelta, MessageRole};
use rota_telemetry::redact::{Redactor, StreamRedactor};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Time for which parts gather. With the size of a part, it bounds the bytes per second.
const INTERVAL: Duration = Duration::from_millis(100);
/// Maximum size of a part.
const MAX_PART_BYTES: usize = 16 << 10;
/// Size of a message after which the rest of it is not streamed: the log cuts it, too.
const MAX_MESSAGE_BYTES: usize = 60 << 10;

/// Parts of the messages of an attempt. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Deltas(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    followed: AtomicBool,
    attempt: AtomicI32,
    state: Mutex<State>,
    /// There is a first part to send.
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the last message.
    number: i64,
    open: Option<Message>,
    taken_at: Option<Instant>,
}

/// A message that is not complete.
#[derive(Debug)]
struct Message {
    role: MessageRole,
    redactor: StreamRedactor,
    /// Bytes of the parts that were taken.
    taken: usize,
    pending: String,
    /// A part is missing, so that the rest is of no use.
    broken: bool,
}

impl Deltas {
    pub(crate) fn set_attempt(&self, attempt: i32) {
        self.0.attempt.store(attempt, Ordering::Relaxed);
    }

    pub(crate) fn set_followed(&self, followed: bool) {
        self.0.followed.store(followed, Ordering::Relaxed);
        if !followed && let Some(open) = &mut self.0.state.lock().open {
            open.pending.clear();
            open.broken = true;
        }
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.0.followed.load(Ordering::Relaxed)
    }

    /// Begins a message. One that was not completed never will be.
    pub(crate) fn begin(&self, role: MessageRole, redactor: &Redactor) {
        let mut state = self.0.state.lock();
        state.number += 1;
        let redactor = StreamRedactor::new(redactor.clone());
        state.open = Some(Message { role, redactor, taken: 0, pending: String::new(), broken: false });
    }

    /// Appends text, unless a part of the message is missing already.
    pub(crate) fn push(&self, text: &str) {
        let mut state = self.0.state.lock();
        let Some(open) = state.open.as_mut().filter(|open| !open.broken) else { return };
        let full = open.pending.len() + text.len() > MAX_PART_BYTES
            || open.taken + open.pending.len() + text.len() > MAX_MESSAGE_BYTES;
        if full || !self.is_followed() {
            open.broken = true;
            return;
        }
        let was_empty = open.pending.is_empty();
        // What may begin a secret is held back.
        let clean = open.redactor.push(text.as_bytes());
        open.pending.push_str(&String::from_utf8_lossy(&clean));
        if was_empty && !open.pending.is_empty() {
            self.0.ready.notify_one();
        }
    }

    /// Ends the message, since the whole of it follows. Returns its number, or 0 if the whole one is another.
    pub(crate) fn complete(&self, role: MessageRole) -> i64 {
        let mut state = self.0.state.lock();
        match state.open.take_if(|open| open.role == role) {
            Some(_) => state.number,
            None => 0,
        }
    }

    /// Waits until there is a part, and takes it. Cancel safe.
    pub(crate) async fn next(&self) -> MessageDelta {
        loop {
            let due = {
                let mut state = self.0.state.lock();
                let due = state.taken_at.map_or_else(Instant::now, |at| at + INTERVAL);
                if state.open.as_ref().is_none_or(|open| open.pending.is_empty()) {
                    None
                } else if due <= Instant::now()
                    && let Some(delta) = self.take(&mut state)
                {
                    return delta;
                } else {
                    Some(due)
                }
            };
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => self.0.ready.notified().await,
            }
        }
    }

    fn take(&self, state: &mut State) -> Option<MessageDelta> {
        let number = state.number;
        let open = state.open.as_mut()?;
        state.taken_at = Some(Instant::now());
        let (offset, text) = (open.taken, std::mem::take(&mut open.pending));
        open.taken += text.len();
        let attempt = self.0.attempt.load(Ordering::Relaxed);
        Some(MessageDelta { role: open.role.into(), attempt, number, offset: to_i64(offset), text })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn deltas() -> Deltas {
        let deltas = Deltas::default();
        deltas.set_attempt(2);
        deltas.set_followed(true);
        deltas
    }

    fn begin(deltas: &Deltas) {
        deltas.begin(MessageRole::Assistant, &Redactor::new(["secret-value"]));
    }

    #[tokio::test(start_paused = true)]
    async fn parts_gather_for_a_while() {
        let deltas = deltas();
        begin(&deltas);
        deltas.push("one ");
        let first = deltas.next().await;
        assert_eq!((first.attempt, first.number, first.offset, first.text.as_str()), (2, 1, 0, "one "));
        deltas.push("two ");
        deltas.push("three.");
        assert!(deltas.next().now_or_never().is_none(), "the first part was just taken");
        let second = deltas.next().await;
        assert_eq!((second.number, second.offset, second.text.as_str()), (1, 4, "two three."));
        assert_eq!(deltas.complete(MessageRole::Thinking), 0);
        assert_eq!(deltas.complete(MessageRole::Assistant), 1);
        assert_eq!(deltas.complete(MessageRole::Assistant), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_without_a_follower() {
        let deltas = deltas();
        deltas.set_followed(false);
        begin(&deltas);
        deltas.push("unheard");
        deltas.set_followed(true);
        deltas.push(" of the same message");
        tokio::time::advance(INTERVAL).await;
        assert!(deltas.next().now_or_never().is_none());
        begin(&deltas);
        deltas.push("next");
        assert_eq!(deltas.next().await.number, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_and_floods_are_not_streamed() {
        let deltas = deltas();
        begin(&deltas);
        for piece in ["a secr", "et-va", "lue b ", "."] {
            deltas.push(piece);
        }
        let text = deltas.next().await.text;
        assert!(text.starts_with("a ") && !text.contains("secret-value") && text.contains(" b "), "{text}");
        deltas.push(&"x".repeat(MAX_PART_BYTES));
        deltas.push("y");
        deltas.push(&"z".repeat(MAX_PART_BYTES));
        tokio::time::advance(INTERVAL).await;
        let left = deltas.next().now_or_never().map(|delta| delta.text.len()).unwrap_or_default();
        assert!(left <= MAX_PART_BYTES, "{left}");
        assert!(deltas.next().now_or_never().is_none());
    }
}
