//! Messages, permissions and steering during an attempt.

use rota_proto::v1::{Decision, InputKind, PermissionPolicy, TaskInput, event};
use serde_json::json;

use super::fixture::Fixture;
use crate::runtimes::RunOutcome;

fn requested(kind: event::Kind) -> Option<rota_proto::v1::InputRequest> {
    match kind {
        event::Kind::InputRequest(request) => Some(request),
        _ => None,
    }
}

fn settled(kind: event::Kind) -> Option<String> {
    match kind {
        event::Kind::InputReceived(given) => Some(given.input?.request_id),
        _ => None,
    }
}

fn can_use(id: &str) -> serde_json::Value {
    json!({"type": "control_request", "request_id": id, "request": {"subtype": "can_use_tool", "tool_name": "Bash",
        "input": {"command": "make"}, "description": "Build", "tool_use_id": "t1"}})
}

fn text_of(outcome: RunOutcome) -> String {
    match outcome {
        RunOutcome::Succeeded(result) => result.text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn successful_run_closes_the_input() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    let uuid = cli.opening().await;
    cli.lifecycle(&uuid, "started").await;
    cli.print(json!({"type": "assistant", "message": {"content": [{"type": "text", "text": "hi"}]}, "parent_tool_use_id": null})).await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    let report = fixture.report().await;
    assert_eq!(report.runtime_session, "s1");
    assert_eq!(report.usage.unwrap().cost_micro_usd, 250_000);
    let RunOutcome::Succeeded(result) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!((result.text.as_str(), result.runtime_session.as_str()), ("done", "s1"));
}

#[tokio::test]
async fn permission_is_requested_and_granted() {
    let mut fixture = Fixture::new(PermissionPolicy::Ask);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    cli.print(can_use("r1")).await;
    let request = fixture.event(requested).await;
    assert_eq!((request.request_id.as_str(), request.kind()), ("r1", InputKind::Permission));
    let allow =
        TaskInput { request_id: "r1".to_owned(), decision: Decision::Allow.into(), ..TaskInput::default() };
    fixture.inputs.send(allow).await.unwrap();
    let answer = cli.read().await.unwrap();
    assert_eq!(answer["response"]["request_id"], "r1");
    assert_eq!(
        answer["response"]["response"],
        json!({"behavior": "allow", "updatedInput": {"command": "make"}})
    );
}

#[tokio::test]
async fn withdrawn_request_is_reported() {
    let mut fixture = Fixture::new(PermissionPolicy::Ask);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    cli.print(can_use("r1")).await;
    fixture.event(requested).await;
    cli.print(json!({"type": "control_cancel_request", "request_id": "r1"})).await;
    fixture.notice("input_withdrawn").await;
    assert_eq!(fixture.event(settled).await, "r1");
}

#[tokio::test]
async fn open_requests_are_settled_at_the_end() {
    let mut fixture = Fixture::new(PermissionPolicy::Ask);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    cli.print(can_use("r1")).await;
    fixture.event(requested).await;
    cli.exit(1);
    assert_eq!(fixture.event(settled).await, "r1");
}

#[tokio::test]
async fn unsupported_requests_are_answered() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    cli.print(
        json!({"type": "control_request", "request_id": "r2", "request": {"subtype": "from_the_future"}}),
    )
    .await;
    assert_eq!(cli.read().await.unwrap()["response"]["subtype"], "error");
    cli.print(can_use("r3")).await;
    assert_eq!(cli.read().await.unwrap()["response"]["response"]["behavior"], "deny");
    fixture.notice("permission_denied").await;
}

#[tokio::test]
async fn steering_keeps_the_input_open() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    let first = cli.opening().await;
    fixture.inputs.send(TaskInput { text: "Be brief.".to_owned(), ..TaskInput::default() }).await.unwrap();
    let steering = cli.read().await.unwrap();
    assert_eq!(steering["message"]["content"], "Be brief.");
    let second = steering["uuid"].as_str().unwrap().to_owned();
    cli.result("one").await;
    cli.lifecycle(&first, "completed").await;
    // The second message gets a turn of its own.
    cli.lifecycle(&second, "started").await;
    cli.print(can_use("r1")).await;
    assert!(cli.read().await.is_some(), "still answered");
    cli.result("two").await;
    cli.lifecycle(&second, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    let report = fixture.report().await;
    assert_eq!(report.usage.unwrap().turns, 2);
    assert_eq!(text_of(report.outcome), "two");
}

#[tokio::test]
async fn unreadable_lines_are_reported_and_skipped() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    let uuid = cli.opening().await;
    cli.raw(b"this is not JSON\n\xff\xfe\n\n").await;
    let mut long = vec![b'x'; 9 << 20];
    long.push(b'\n');
    cli.raw(&long).await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    fixture.notice("malformed_line").await;
    fixture.notice("malformed_line").await;
    fixture.notice("oversized_line").await;
    assert_eq!(text_of(fixture.report().await.outcome), "done");
}

#[tokio::test(start_paused = true)]
async fn missing_acknowledgement_times_out() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    cli.result("done").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    assert_eq!(text_of(fixture.report().await.outcome), "done");
}

#[tokio::test(start_paused = true)]
async fn lines_without_events_show_activity() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    fixture.notice("runtime_started").await;
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        cli.print(json!({"type": "system", "subtype": "thinking_tokens", "n": 7})).await;
        let step = fixture.event(|kind| match kind {
            event::Kind::Progress(progress) => Some(progress.step),
            _ => None,
        });
        assert_eq!(step.await, "working");
    }
}

#[tokio::test]
async fn line_with_a_lone_surrogate_is_not_lost() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    let uuid = cli.opening().await;
    cli.raw(
        concat!(
            r#"{"type": "result", "subtype": "success", "is_error": false, "result": "cut \ud83d", "modelUsage": {}}"#,
            "\n"
        )
        .as_bytes(),
    )
    .await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    assert_eq!(text_of(fixture.report().await.outcome), "cut \u{fffd}");
}

#[tokio::test]
async fn unreadable_control_request_is_answered() {
    let mut fixture = Fixture::new(PermissionPolicy::Ask);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    // Of a type that this version does not know.
    cli.print(json!({"type": "control_request", "request_id": "r7", "request": {"subtype": "can_use_tool", "tool_name": 7}})).await;
    let answer = cli.read().await.unwrap();
    assert_eq!(
        (&answer["response"]["subtype"], &answer["response"]["request_id"]),
        (&json!("error"), &json!("r7"))
    );
    fixture.notice("malformed_line").await;
}

#[tokio::test]
async fn denied_tools_are_counted() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    let denied = |id: &str, tool: &str| json!({"tool_name": tool, "tool_use_id": id, "tool_input": {}});
    cli.print(
        json!({"type": "result", "subtype": "success", "is_error": false, "result": "done", "modelUsage": {},
        "permission_denials": [denied("t1", "Bash"), denied("t2", "Edit"), denied("t3", "Bash")]}),
    )
    .await;
    assert!(fixture.notice("tools_denied").await.contains("Bash (2), Edit (1)"));
}

#[tokio::test(start_paused = true)]
async fn tool_progress_does_not_extend_a_tool() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    fixture.notice("runtime_started").await;
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_secs(30)).await;
        cli.print(json!({"type": "tool_progress", "tool_use_id": "t1", "tool_name": "Bash", "elapsed_time_seconds": 30})).await;
    }
    // Other lines are life: a part of an answer, for example.
    cli.print(json!({"type": "stream_event", "event": {"type": "content_block_delta"}})).await;
    let first = fixture.event(Some).await;
    assert!(matches!(first, event::Kind::Progress(_)), "{first:?}");
    assert!(fixture.events.try_recv().is_err());
}

#[tokio::test]
async fn changed_set_up_is_refused_and_reported_once() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    for (id, source) in [("h1", "skills"), ("h2", "project_settings"), ("h3", "project_settings")] {
        let input = json!({"hook_event_name": "ConfigChange", "source": source, "file_path": "/w/x"});
        let request = json!({"subtype": "hook_callback", "callback_id": "set-up", "input": input});
        cli.print(json!({"type": "control_request", "request_id": id, "request": request})).await;
        let answer = cli.read().await.unwrap();
        assert_eq!(answer["response"]["request_id"], id);
        assert_eq!(answer["response"]["response"]["decision"], "block");
    }
    cli.result("done").await;
    cli.exit(0);
    assert!(fixture.notice("project_setup").await.contains("keeps those of its start"));
    let mut others = 0;
    while let Some(event) = fixture.events.recv().await {
        others += u32::from(matches!(event, event::Kind::Notice(notice) if notice.code == "project_setup"));
    }
    assert_eq!(others, 0);
}
