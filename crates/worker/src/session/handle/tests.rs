//! Limits and the end of an attempt, on paused time.

use rota_proto::v1::{InputRequest, TaskInput, ToolCall, ToolResult};

use super::*;
use crate::session::outbox::Bounds;

const LIMIT: Duration = Duration::from_secs(60);

fn remaining(handle: &AttemptHandle) -> Option<Duration> {
    handle.silence_deadline(LIMIT).map(|at| at - Instant::now())
}

fn push(handle: &Arc<AttemptHandle>, kind: event::Kind) {
    handle.push(Event { kind: Some(kind), ..Event::default() });
}

fn handle() -> Arc<AttemptHandle> {
    let outbox = Outbox::new(std::env::temp_dir(), Bounds::default());
    let key = AttemptKey { task: "task".into(), fence: 1 };
    let handle = Arc::new(AttemptHandle::new(outbox, key, mpsc::unbounded_channel().0));
    handle.start_silence_clock();
    handle
}

#[tokio::test(start_paused = true)]
async fn running_tool_has_its_own_silence_timeout() {
    let handle = handle();
    assert_eq!(remaining(&handle), Some(LIMIT));
    let call_id = "c1".to_owned();
    push(&handle, event::Kind::ToolCall(ToolCall { call_id: call_id.clone(), ..ToolCall::default() }));
    assert_eq!(remaining(&handle), Some(TOOL_SILENCE));
    push(&handle, event::Kind::ToolResult(ToolResult { call_id, ..ToolResult::default() }));
    assert_eq!(remaining(&handle), Some(LIMIT));
}

#[tokio::test(start_paused = true)]
async fn withdrawn_request_restarts_silence_timeout() {
    let handle = handle();
    let request_id = "r1".to_owned();
    let asked = InputRequest { request_id: request_id.clone(), ..InputRequest::default() };
    push(&handle, event::Kind::InputRequest(asked));
    assert_eq!(remaining(&handle), None);
    let input = Some(TaskInput { request_id, ..TaskInput::default() });
    push(&handle, event::Kind::InputReceived(InputReceived { input_seq: 0, input }));
    assert_eq!(remaining(&handle), Some(LIMIT));
}

#[tokio::test]
async fn budgets_end_no_finished_work() {
    let stopping = |handle: &AttemptHandle| (handle.lock().stop_reason, handle.is_stopping());
    let request = |handle: &AttemptHandle, reason| handle.request_stop(reason, LIMIT);
    let early = handle();
    request(&early, StopReason::Budget);
    assert_eq!(stopping(&early), (Some(StopReason::Budget), true));
    early.finish();
    assert_eq!(stopping(&early), (None, false));
    request(&early, StopReason::Budget);
    assert_eq!(stopping(&early), (None, false));
    request(&early, StopReason::Cancelled);
    assert_eq!(stopping(&early), (Some(StopReason::Cancelled), true));
    // A person does.
    let cancelled = handle();
    request(&cancelled, StopReason::Budget);
    request(&cancelled, StopReason::Cancelled);
    cancelled.finish();
    assert_eq!(stopping(&cancelled), (Some(StopReason::Cancelled), true));
}

#[tokio::test(start_paused = true)]
async fn deadline_stands_still_while_questions_are_open() {
    let handle = handle();
    let question = |id: &str| {
        let request = InputRequest { request_id: id.to_owned(), ..InputRequest::default() };
        push(&handle, event::Kind::InputRequest(request));
    };
    let hour = Duration::from_secs(3600);
    let end = Instant::now() + hour;
    assert_eq!(handle.deadline(end), Some(end));
    question("a");
    question("b");
    tokio::time::advance(hour).await;
    handle.resolve_request("a");
    assert_eq!(handle.deadline(end), None, "another question is open");
    tokio::time::advance(hour).await;
    handle.resolve_request("b");
    assert_eq!(handle.deadline(end), Some(end + 2 * hour));
    // A repeated answer changes nothing.
    tokio::time::advance(hour).await;
    handle.resolve_request("b");
    assert_eq!(handle.deadline(end), Some(end + 2 * hour));
}

#[tokio::test(start_paused = true)]
async fn deadline_stands_still_while_frozen() {
    let handle = handle();
    let hour = Duration::from_secs(3600);
    let end = Instant::now() + hour;
    handle.set_paused(true);
    tokio::time::advance(2 * hour).await;
    assert_eq!(handle.deadline(end), None);
    // A question that was asked before, and is answered while it is frozen.
    handle.resolve_request("a");
    assert_eq!(handle.deadline(end), None);
    handle.set_paused(false);
    assert_eq!(handle.deadline(end), Some(end + 2 * hour));
}

#[tokio::test(start_paused = true)]
async fn deadline_stands_still_until_the_workspace_is_free() {
    let handle = handle();
    let hour = Duration::from_secs(3600);
    let end = Instant::now() + hour;
    assert!(handle.set_held_up(true));
    tokio::time::advance(2 * hour).await;
    assert_eq!(handle.deadline(end), None);
    assert!(handle.set_held_up(false) && !handle.set_held_up(false));
    assert_eq!(handle.deadline(end), Some(end + 2 * hour));
}
