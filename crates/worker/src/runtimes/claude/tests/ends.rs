//! How attempts end when they do not end well by themselves.

use std::time::Duration;

use rota_proto::v1::{FailureClass, PermissionPolicy, event};
use rota_telemetry::redact::Redactor;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::stage::Stage;
use crate::runtimes::Ending;

const GRACE: Duration = Duration::from_secs(9);

fn class_of(ending: &Ending) -> FailureClass {
    match ending {
        Ending::Failed(failure) => failure.class(),
        other => panic!("{other:?}"),
    }
}

fn aborted() -> serde_json::Value {
    json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "terminal_reason": "aborted_tools",
        "modelUsage": {"m": {"outputTokens": 5, "costUSD": 0.5}}})
}

#[tokio::test]
async fn no_result_is_a_failure() {
    for (garbage, code, expected) in [
        (true, 0, FailureClass::Protocol),
        (false, 0, FailureClass::Protocol),
        (false, 1, FailureClass::Crash),
        (false, 143, FailureClass::Crash),
    ] {
        let mut stage = Stage::new(PermissionPolicy::Deny);
        let mut cli = stage.cli().await;
        cli.opening().await;
        if garbage {
            cli.raw(b"{\"type\":\n").await;
        }
        cli.stderr.write_all(b"it went wrong").await.unwrap();
        cli.exit(code);
        let outcome = stage.outcome().await;
        assert_eq!(class_of(&outcome.ending), expected);
        let Ending::Failed(failure) = outcome.ending else { panic!() };
        assert!(failure.message.contains("it went wrong"), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_turn_that_does_not_end_spoils_the_one_before() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    cli.opening().await;
    cli.result("one").await;
    cli.print(json!({"type": "system", "subtype": "init", "session_id": "s1"})).await;
    cli.exit(137);
    assert_eq!(class_of(&stage.outcome().await.ending), FailureClass::Crash);
}

#[tokio::test]
async fn a_stop_interrupts_and_keeps_the_usage() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    cli.opening().await;
    stage.notice("runtime_started").await;
    stage.stop(GRACE);
    assert_eq!(cli.read().await.unwrap()["request"]["subtype"], "interrupt");
    cli.print(aborted()).await;
    assert_eq!(cli.read().await, None, "its input is closed");
    cli.exit(1);
    let outcome = stage.outcome().await;
    assert!(matches!(outcome.ending, Ending::Stopped { by: "interrupt" }), "{:?}", outcome.ending);
    assert_eq!(outcome.usage.unwrap().cost_micro_usd, 500_000);
    assert_eq!(outcome.runtime_session, "s1");
}

#[tokio::test(start_paused = true)]
async fn a_cli_that_does_not_hear_is_ended_by_force() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    cli.opening().await;
    stage.stop(GRACE);
    let ended = cli.ended.clone();
    let outcome = stage.outcome().await;
    assert!(matches!(outcome.ending, Ending::Stopped { by: "kill" }), "{:?}", outcome.ending);
    assert_eq!(*ended.lock().unwrap(), [GRACE * 2 / 3], "a third went to the interrupt");
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_while_nobody_takes_events() {
    let mut stage = Stage::with(PermissionPolicy::Deny, "", 1, Redactor::default());
    let mut cli = stage.cli().await;
    cli.opening().await;
    for _ in 0..100 {
        cli.print(json!({"type": "assistant", "message": {"content": "word"}, "parent_tool_use_id": null}))
            .await;
    }
    stage.stop(GRACE);
    assert_eq!(cli.read().await.unwrap()["request"]["subtype"], "interrupt");
    cli.print(aborted()).await;
    assert_eq!(cli.read().await, None);
    cli.exit(1);
    let stop = stage.stop.clone();
    let outcome = stage.outcome().await;
    assert!(matches!(outcome.ending, Ending::Stopped { by: "interrupt" }), "{:?}", outcome.ending);
    drop(stop);
}

#[tokio::test(start_paused = true)]
async fn what_is_done_stays_done_though_the_cli_does_not_go() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    let uuid = cli.opening().await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    let outcome = stage.outcome().await;
    assert!(matches!(outcome.ending, Ending::Succeeded(_)), "{:?}", outcome.ending);
    assert_eq!(cli.ended.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_anew() {
    let mut stage = Stage::with(PermissionPolicy::Deny, "old", 64, Redactor::default());
    let mut cli = stage.cli().await;
    assert!(cli.program.args.contains(&"--resume=old".to_owned()));
    cli.print(
        json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "num_turns": 0,
        "total_cost_usd": 0, "errors": ["No conversation found with session ID: old"]}),
    )
    .await;
    cli.exit(1);
    stage.notice("session_lost").await;
    let mut cli = stage.cli().await;
    assert!(cli.program.args.iter().any(|arg| arg.starts_with("--session-id=")));
    let uuid = cli.opening().await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    let outcome = stage.outcome().await;
    assert!(matches!(outcome.ending, Ending::Succeeded(_)), "{:?}", outcome.ending);
}

#[tokio::test]
async fn no_cut_leaves_a_part_of_a_secret() {
    let secret = uuid::Uuid::new_v4().to_string();
    let mut stage = Stage::with(PermissionPolicy::Deny, "", 1000, Redactor::new([secret.as_str()]));
    let mut cli = stage.cli().await;
    cli.opening().await;
    // Across the end of what is told of such a line, of a step and of a tool's arguments.
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
    // Across the beginning of what is kept of this.
    cli.stderr.write_all(format!("{secret}{}", "x".repeat((4 << 10) - 12)).as_bytes()).await.unwrap();
    // All is read before the stream ends, and all events fit.
    let mut told = String::new();
    let (mut steps, mut lines) = (0, 0);
    while steps < 4 || lines < 4 {
        let event = stage.event(Some).await;
        steps += u32::from(matches!(event, event::Kind::Progress(_)));
        lines += u32::from(matches!(&event, event::Kind::Notice(notice) if notice.code == "malformed_line"));
        if !matches!(event, event::Kind::Output(_)) {
            told += &format!("{event:?}\n");
        }
    }
    cli.exit(1);
    let Ending::Failed(failure) = stage.outcome().await.ending else { panic!() };
    told += &failure.message;
    assert!(told.contains("[redacted]"), "{told}");
    for part in [&secret[..8], &secret[secret.len() - 8..]] {
        assert!(!told.contains(part), "{part} in {told}");
    }
}
