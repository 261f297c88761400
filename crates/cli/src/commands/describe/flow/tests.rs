//! Timelines built from logs.

use std::time::UNIX_EPOCH;

use pbjson_types::Timestamp;
use rota_proto::v1::{
    Decision, Failure, FailureClass, InputReceived, InputRequest, StateChange, TaskInput, TaskStatus,
    ToolCall, ToolResult, Usage, Wait, WaitReason,
};

use super::*;

fn at(millis: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap();
    Some(Timestamp { seconds: 1000 + millis / 1000, nanos })
}

fn now(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
}

fn entry(millis: i64, attempt: i32, kind: event::Kind) -> Event {
    Event { time: at(millis), attempt, kind: Some(kind), ..Default::default() }
}

fn transition(
    millis: i64,
    attempt: i32,
    from: TaskState,
    to: TaskState,
    reason: &str,
    worker: &str,
) -> Event {
    let change = StateChange {
        from: from.into(),
        to: to.into(),
        reason: reason.into(),
        worker: worker.into(),
        ..Default::default()
    };
    entry(millis, attempt, event::Kind::State(change))
}

fn task(state: TaskState, end: Option<Timestamp>) -> Task {
    let status = TaskStatus { state: state.into(), end_time: end, ..Default::default() };
    Task { alias: "build".into(), create_time: at(0), status: Some(Box::new(status)), ..Default::default() }
}

use TaskState::*;

/// Log of a task with a failed attempt, a tool call, a question, and success.
fn log() -> Vec<Event> {
    let mut failed = transition(3000, 1, Running, Pending, "retry", "");
    if let Some(event::Kind::State(change)) = &mut failed.kind {
        let class = FailureClass::Overload.into();
        change.failure = Some(Failure { class, message: "the model is busy".into(), ..Default::default() });
        change.retry_time = at(5000);
    }
    let call = ToolCall {
        call_id: "c".into(),
        tool: "my tool".into(),
        input_json: "{\"command\":\"ls\"}".into(),
        ..Default::default()
    };
    let answer = ToolResult { call_id: "c".into(), output: "no such file".into(), is_error: true };
    let question = InputRequest { request_id: "q".into(), prompt: "which one?".into(), ..Default::default() };
    let input = TaskInput { request_id: "q".into(), text: "the first".into(), ..Default::default() };
    let usage = Usage { input_tokens: 10, cache_read_tokens: 5, output_tokens: 2, ..Default::default() };
    vec![
        transition(0, 0, Unspecified, Pending, "created", ""),
        transition(0, 0, Pending, Queued, "ready", ""),
        transition(1000, 1, Queued, Assigned, "assigned", "one"),
        transition(1500, 1, Assigned, Running, "started", "one"),
        failed,
        transition(5000, 1, Pending, Queued, "ready", ""),
        transition(5000, 2, Queued, Assigned, "assigned", "two"),
        transition(5000, 2, Assigned, Running, "started", "two"),
        entry(6000, 2, event::Kind::ToolCall(call)),
        entry(6250, 2, event::Kind::ToolResult(answer)),
        entry(7000, 2, event::Kind::InputRequest(question)),
        transition(7000, 2, Running, InputRequired, "input_required", ""),
        entry(9000, 2, event::Kind::InputReceived(InputReceived { input_seq: 1, input: Some(input) })),
        transition(9000, 2, InputRequired, Running, "input_settled", ""),
        entry(9500, 2, event::Kind::Usage(usage)),
        transition(10_000, 2, Running, Succeeded, "succeeded", ""),
    ]
}

#[test]
fn a_whole_log() {
    let flow = Flow::of(&task(Succeeded, at(10_000)), &log(), now(99_000));
    let text = flow.text(false);
    assert_eq!(
        text,
        "\
build Succeeded after 10s: pending 2.0s, queued 1.5s, running 4.5s, waiting for input 2.0s
created 1970-01-01T00:16:40.000Z

AFTER  TOOK   STEP       ATTEMPT  DETAILS
+0ms   0ms    created             priority 5
+0ms   1.0s   queued              for default
+1.0s  500ms  assigned   1        on one
+1.5s  1.5s   running    1        on one
+3.0s  2.0s   retry      1        overload: the model is busy; next attempt at 1970-01-01T00:16:45.000Z
+5.0s  0ms    queued     1        for default
+5.0s  0ms    assigned   2        on two
+5.0s  5.0s   running    2        on two; 15 tokens in, 2 out
+6.0s  250ms  tool       2        my tool {\"command\":\"ls\"} failed: no such file
+7.0s  2.0s   asks       2        which one?
+9.0s         input      2        the first
+10s          succeeded  2"
    );
    let json = serde_json::to_value(&flow).unwrap();
    assert_eq!(json["totals"]["inputRequired"], "2.000s");
    assert_eq!(json["steps"][3]["worker"], "one");
    assert_eq!(json["steps"][8]["tool"], "my tool");
    assert_eq!((&json["steps"][8]["kind"], &json["steps"][8]["took"]), (&"tool".into(), &"0.250s".into()));
}

#[test]
fn open_steps_show_time_so_far() {
    let mut task = task(Pending, None);
    let wait =
        Wait { reason: WaitReason::DependencyMissing.into(), subject: "first".into(), ..Default::default() };
    task.status.as_mut().unwrap().waiting = vec![wait];
    let flow = Flow::of(&task, &log()[..1], now(4000));
    assert!(flow.text(false).starts_with("build Pending for 4.0s: pending 4.0s"), "{}", flow.text(false));
    let row = &flow.steps[0];
    assert_eq!((row.took, row.open), (Some(ApiDuration(Duration::from_secs(4))), true));
    assert_eq!(row.text, "priority 5; waiting for: dependency missing first");
}

#[test]
fn ended_attempt_closes_its_steps() {
    let mut events = log();
    // Lost while a tool runs.
    events.truncate(9);
    events.push(transition(6500, 2, Running, Pending, "worker_lost", "two"));
    let flow = Flow::of(&task(Pending, None), &events, now(8500));
    let tool = &flow.steps[8];
    assert_eq!(
        (tool.kind, tool.open, tool.took),
        ("tool", false, Some(ApiDuration(Duration::from_millis(500))))
    );
    let lost = flow.steps.last().unwrap();
    assert_eq!(
        (lost.kind, lost.open, lost.took),
        ("worker_lost", true, Some(ApiDuration(Duration::from_secs(2))))
    );
}

#[test]
fn clock_skew_is_clamped() {
    let mut events = log();
    events[8].time = at(-50_000);
    let flow = Flow::of(&task(Running, None), &events[..9], now(0));
    assert_eq!(flow.steps[8].since, ApiDuration::default());
    let allowed = InputReceived {
        input_seq: 1,
        input: Some(TaskInput { decision: Decision::Allow.into(), ..Default::default() }),
    };
    let flow = Flow::of(
        &task(Running, None),
        &[entry(0, 1, event::Kind::InputReceived(allowed))],
        SystemTime::UNIX_EPOCH,
    );
    assert_eq!(flow.steps[0].text, "allow");
}
