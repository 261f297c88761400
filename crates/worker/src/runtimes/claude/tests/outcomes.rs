//! Attempts that fail, are stopped, or leave a CLI that does not exit.

use std::time::Duration;

use rota_proto::v1::{FailureClass, PermissionPolicy, event};
use rota_telemetry::redact::Redactor;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::fixture::Fixture;
use crate::runtimes::RunOutcome;

const CANCEL_GRACE: Duration = Duration::from_secs(9);

fn class_of(outcome: &RunOutcome) -> FailureClass {
    match outcome {
        RunOutcome::Failed(failure) => failure.class(),
        other => panic!("{other:?}"),
    }
}

fn aborted() -> serde_json::Value {
    json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "terminal_reason": "aborted_tools",
        "modelUsage": {"m": {"outputTokens": 5, "costUSD": 0.5}}})
}

#[tokio::test]
async fn missing_result_is_a_failure() {
    for (garbage, code, expected) in [
        (true, 0, FailureClass::Protocol),
        (false, 0, FailureClass::Protocol),
        (false, 1, FailureClass::Crash),
        (false, 143, FailureClass::Crash),
    ] {
        let mut fixture = Fixture::new(PermissionPolicy::Deny);
        let mut cli = fixture.cli().await;
        cli.opening().await;
        if garbage {
            cli.raw(b"{\"type\":\n").await;
        }
        cli.stderr.write_all(b"it broke").await.unwrap();
        cli.exit(code);
        let report = fixture.report().await;
        assert_eq!(class_of(&report.outcome), expected);
        let RunOutcome::Failed(failure) = report.outcome else { panic!() };
        assert!(failure.message.contains("it broke"), "{}", failure.message);
    }
}

#[tokio::test]
async fn unfinished_turn_voids_the_previous_result() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    cli.result("one").await;
    cli.print(json!({"type": "system", "subtype": "init", "session_id": "s1"})).await;
    cli.exit(137);
    assert_eq!(class_of(&fixture.report().await.outcome), FailureClass::Crash);
}

#[tokio::test]
async fn stop_interrupts_and_keeps_usage() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    fixture.notice("runtime_started").await;
    fixture.stop(CANCEL_GRACE);
    assert_eq!(cli.read().await.unwrap()["request"]["subtype"], "interrupt");
    cli.print(aborted()).await;
    assert_eq!(cli.read().await, None, "its input is closed");
    cli.exit(1);
    let report = fixture.report().await;
    assert!(matches!(report.outcome, RunOutcome::Stopped { by: "interrupt" }), "{:?}", report.outcome);
    assert_eq!(report.usage.unwrap().cost_micro_usd, 500_000);
    assert_eq!(report.runtime_session, "s1");
}

#[tokio::test(start_paused = true)]
async fn cli_that_was_busy_is_asked_for_usage_again() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    let mut last = None;
    while let Ok(line) = tokio::time::timeout(Duration::from_secs(120), cli.any_line()).await {
        let line = line.unwrap();
        assert_eq!(line["request"]["subtype"], "get_usage");
        last = Some(line["request_id"].clone());
    }
    let session = json!({"session": {"model_usage": {}}});
    let response = json!({"subtype": "success", "request_id": last.unwrap(), "response": session});
    cli.print(json!({"type": "control_response", "response": response})).await;
    let next = tokio::time::timeout(Duration::from_secs(120), cli.any_line()).await;
    assert_eq!(next.expect("it is not asked").unwrap()["request"]["subtype"], "get_usage");
    fixture.stop(CANCEL_GRACE);
    assert!(matches!(fixture.report().await.outcome, RunOutcome::Stopped { .. }));
}

#[tokio::test(start_paused = true)]
async fn unresponsive_cli_is_killed() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    cli.opening().await;
    fixture.stop(CANCEL_GRACE);
    let ended = cli.ended.clone();
    let report = fixture.report().await;
    assert!(matches!(report.outcome, RunOutcome::Stopped { by: "kill" }), "{:?}", report.outcome);
    assert_eq!(*ended.lock().unwrap(), [CANCEL_GRACE * 2 / 3], "a third was spent on the interrupt");
}

#[tokio::test(start_paused = true)]
async fn stop_works_while_events_are_blocked() {
    let mut fixture = Fixture::with(PermissionPolicy::Deny, "", 1, Redactor::default());
    let mut cli = fixture.cli().await;
    cli.opening().await;
    for _ in 0..100 {
        cli.print(json!({"type": "assistant", "message": {"content": "word"}, "parent_tool_use_id": null}))
            .await;
    }
    fixture.stop(CANCEL_GRACE);
    assert_eq!(cli.read().await.unwrap()["request"]["subtype"], "interrupt");
    cli.print(aborted()).await;
    assert_eq!(cli.read().await, None);
    cli.exit(1);
    let stop = fixture.stop.clone();
    let report = fixture.report().await;
    assert!(matches!(report.outcome, RunOutcome::Stopped { by: "interrupt" }), "{:?}", report.outcome);
    drop(stop);
}

#[tokio::test(start_paused = true)]
async fn result_stands_though_cli_does_not_exit() {
    let mut fixture = Fixture::new(PermissionPolicy::Deny);
    let mut cli = fixture.cli().await;
    let uuid = cli.opening().await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    let report = fixture.report().await;
    assert!(matches!(report.outcome, RunOutcome::Succeeded(_)), "{:?}", report.outcome);
    assert_eq!(cli.ended.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn missing_session_is_replaced() {
    let mut fixture = Fixture::with(PermissionPolicy::Deny, "old", 64, Redactor::default());
    let mut cli = fixture.cli().await;
    assert!(cli.program.args.contains(&"--resume=old".to_owned()));
    cli.print(
        json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "num_turns": 0,
        "total_cost_usd": 0, "errors": ["No conversation found with session ID: old"]}),
    )
    .await;
    cli.exit(1);
    fixture.notice("session_lost").await;
    let mut cli = fixture.cli().await;
    assert!(cli.program.args.iter().any(|arg| arg.starts_with("--session-id=")));
    let uuid = cli.opening().await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    let report = fixture.report().await;
    assert!(matches!(report.outcome, RunOutcome::Succeeded(_)), "{:?}", report.outcome);
}

#[tokio::test]
async fn refused_conversation_costs_what_it_has_used() {
    let mut fixture = Fixture::with(PermissionPolicy::Deny, "old", 64, Redactor::default());
    let mut cli = fixture.cli().await;
    cli.print(
        json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "num_turns": 1,
        "total_cost_usd": 0.5, "modelUsage": {"m": {"outputTokens": 5, "costUSD": 0.5}}}),
    )
    .await;
    cli.exit(1);
    fixture.notice("checkpoint_unusable").await;
    let mut cli = fixture.cli().await;
    let uuid = cli.opening().await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    let report = fixture.report().await;
    assert!(matches!(report.outcome, RunOutcome::Succeeded(_)), "{:?}", report.outcome);
    assert_eq!(report.usage.map(|usage| usage.cost_micro_usd), Some(750_000));
}

#[tokio::test]
async fn truncation_leaves_no_partial_secret() {
    let secret = uuid::Uuid::new_v4().to_string();
    let mut fixture = Fixture::with(PermissionPolicy::Deny, "", 1000, Redactor::new([secret.as_str()]));
    let mut cli = fixture.cli().await;
    cli.opening().await;
    // Across the end of the excerpt of an unreadable line, of a step and of a tool's arguments.
    for room in [190, 175, 165, 155] {
        let before = "x".repeat(room - 10);
        cli.raw(format!("{before}{secret}{before}\n").as_bytes()).await;
    }
    for (id, room) in [206, 246, 974, 1014].into_iter().enumerate() {
        let command = format!("{}{secret}{}", "x".repeat(room), "y".repeat(20_000));
        let input = json!({"command": command});
        let call = json!({"type": "tool_use", "id": id.to_string(), "name": "Bash", "input": input});
        cli.print(json!({"type": "assistant", "parent_tool_use_id": null, "message": {"id": "m", "role": "assistant", "content": [call]}}))
            .await;
    }
    // Across the start of the kept tail.
    cli.stderr.write_all(format!("{secret}{}", "x".repeat((4 << 10) - 12)).as_bytes()).await.unwrap();
    // Read completely before the stream ends; all events fit.
    let mut texts = String::new();
    let (mut steps, mut lines) = (0, 0);
    while steps < 4 || lines < 4 {
        let event = fixture.event(Some).await;
        steps += u32::from(matches!(event, event::Kind::Progress(_)));
        lines += u32::from(matches!(&event, event::Kind::Notice(notice) if notice.code == "malformed_line"));
        if !matches!(event, event::Kind::Output(_)) {
            texts += &format!("{event:?}\n");
        }
    }
    cli.exit(1);
    let RunOutcome::Failed(failure) = fixture.report().await.outcome else { panic!() };
    texts += &failure.message;
    assert!(texts.contains("[redacted]"), "{texts}");
    for part in [&secret[..8], &secret[secret.len() - 8..]] {
        assert!(!texts.contains(part), "{part} in {texts}");
    }
}
