//! When an attempt has waited for a person for long enough to release its slot. The control plane decides; until then the attempt
//! continues.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::handle::{AttemptHandle, AttemptState};

/// Waits of an attempt for a person.
pub(super) struct Waits<'a> {
    handle: &'a AttemptHandle,
    after: Duration,
    waiting: watch::Receiver<Option<Instant>>,
    /// Time of the last offer to release the slot, which was lost or not taken if the attempt still waits.
    offered: Option<Instant>,
}

impl<'a> Waits<'a> {
    pub(super) fn of(handle: &'a AttemptHandle, after: Duration) -> Self {
        Self { handle, after, waiting: handle.waiting.subscribe(), offered: None }
    }

    /// Returns the open requests once the attempt has waited for long enough.
    pub(super) async fn long_enough(&mut self) -> Vec<String> {
        loop {
            let since = *self.waiting.borrow_and_update();
            let due =
                since.map(|since| self.offered.map_or(since, |offered| offered.max(since)) + self.after);
            tokio::select! {
                // The sender is the handle.
                Ok(()) = self.waiting.changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.offered = Some(Instant::now());
                    return self.handle.lock().open_requests.iter().cloned().collect();
                }
                else => return std::future::pending().await,
            }
        }
    }
}

impl AttemptHandle {
    /// Starts the wait for a person again if a question was `asked` or answered, and ends it while other tools run: their work
    /// would be lost.
    pub(super) fn match_waiting(&self, state: &AttemptState, asked: bool) {
        // A call may ask several questions, whose ids have a number.
        let calls = state.open_requests.iter().map(|id| id.split_once('#').map_or(id.as_str(), |(id, _)| id));
        let asking = calls.collect::<HashSet<_>>().len();
        let waits = asking > 0 && state.running_tools.len() <= asking;
        if asked || waits != self.waiting.borrow().is_some() {
            self.waiting.send_replace(waits.then(Instant::now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rota_proto::v1::{Event, InputReceived, InputRequest, TaskInput, ToolCall, ToolResult, event};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::session::attempt::AttemptKey;
    use crate::session::outbox::{Bounds, Outbox};

    const AFTER: Duration = Duration::from_secs(600);

    fn handle() -> Arc<AttemptHandle> {
        let outbox = Outbox::new(std::env::temp_dir(), Bounds::default());
        let key = AttemptKey { task: "task".into(), fence: 1 };
        Arc::new(AttemptHandle::new(outbox, key, mpsc::unbounded_channel().0))
    }

    fn push(handle: &Arc<AttemptHandle>, kind: event::Kind) {
        handle.push(Event { kind: Some(kind), ..Event::default() });
    }

    fn ask(handle: &Arc<AttemptHandle>, id: &str) {
        push(
            handle,
            event::Kind::ToolCall(ToolCall { call_id: format!("call-{id}"), ..ToolCall::default() }),
        );
        let asked = InputRequest { request_id: id.to_owned(), ..InputRequest::default() };
        push(handle, event::Kind::InputRequest(asked));
    }

    async fn waits_for(waits: &mut Waits<'_>, time: Duration) -> Option<Vec<String>> {
        timeout(time, waits.long_enough()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn slot_is_offered_again_after_each_time() {
        let handle = handle();
        let mut waits = Waits::of(&handle, AFTER);
        assert_eq!(waits_for(&mut waits, AFTER * 9).await, None, "nothing is asked");
        ask(&handle, "q1");
        assert_eq!(waits_for(&mut waits, AFTER / 2).await, None);
        // A wait that was dropped meanwhile continues.
        assert_eq!(waits_for(&mut waits, AFTER).await, Some(vec!["q1".to_owned()]));
        assert_eq!(waits_for(&mut waits, AFTER / 2).await, None);
        assert_eq!(waits_for(&mut waits, AFTER).await, Some(vec!["q1".to_owned()]));
        // Withdrawn, and asked again.
        let input = Some(TaskInput { request_id: "q1".to_owned(), ..TaskInput::default() });
        push(&handle, event::Kind::InputReceived(InputReceived { input, ..InputReceived::default() }));
        assert_eq!(waits_for(&mut waits, AFTER * 9).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn running_tools_keep_the_slot() {
        let handle = handle();
        let mut waits = Waits::of(&handle, AFTER);
        let call_id = "build".to_owned();
        push(&handle, event::Kind::ToolCall(ToolCall { call_id: call_id.clone(), ..ToolCall::default() }));
        // Two questions of one call.
        ask(&handle, "q");
        let second = InputRequest { request_id: "q#1".to_owned(), ..InputRequest::default() };
        push(&handle, event::Kind::InputRequest(second));
        assert_eq!(waits_for(&mut waits, AFTER * 9).await, None);
        push(&handle, event::Kind::ToolResult(ToolResult { call_id, ..ToolResult::default() }));
        assert_eq!(waits_for(&mut waits, AFTER * 2).await.map(|asked| asked.len()), Some(2));
    }
}
