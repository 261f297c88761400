//! What is said while an attempt runs.

use rota_proto::v1::{Decision, InputKind, PermissionPolicy, TaskInput, event};
use serde_json::json;

use super::stage::Stage;
use crate::runtimes::Ending;

fn requested(kind: event::Kind) -> Option<rota_proto::v1::InputRequest> {
    match kind {
        event::Kind::InputRequest(request) => Some(request),
        _ => None,
    }
}

fn can_use(id: &str) -> serde_json::Value {
    json!({"type": "control_request", "request_id": id, "request": {"subtype": "can_use_tool", "tool_name": "Bash",
        "input": {"command": "make"}, "description": "Build", "tool_use_id": "t1"}})
}

fn text_of(ending: Ending) -> String {
    match ending {
        Ending::Succeeded(result) => result.text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plain_run_closes_its_input_and_succeeds() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    let uuid = cli.opening().await;
    cli.lifecycle(&uuid, "started").await;
    cli.print(json!({"type": "assistant", "message": {"content": [{"type": "text", "text": "hi"}]}, "parent_tool_use_id": null})).await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    let outcome = stage.outcome().await;
    assert_eq!(outcome.runtime_session, "s1");
    assert_eq!(outcome.usage.unwrap().cost_micro_usd, 250_000);
    let Ending::Succeeded(result) = outcome.ending else { panic!("{:?}", outcome.ending) };
    assert_eq!((result.text.as_str(), result.runtime_session.as_str()), ("done", "s1"));
}

#[tokio::test]
async fn a_permission_is_asked_for_and_given() {
    let mut stage = Stage::new(PermissionPolicy::Ask);
    let mut cli = stage.cli().await;
    cli.opening().await;
    cli.print(can_use("r1")).await;
    let request = stage.event(requested).await;
    assert_eq!((request.request_id.as_str(), request.kind()), ("r1", InputKind::Permission));
    let allow =
        TaskInput { request_id: "r1".to_owned(), decision: Decision::Allow.into(), ..TaskInput::default() };
    stage.inputs.send(allow).await.unwrap();
    let answer = cli.read().await.unwrap();
    assert_eq!(answer["response"]["request_id"], "r1");
    assert_eq!(
        answer["response"]["response"],
        json!({"behavior": "allow", "updatedInput": {"command": "make"}})
    );
}

#[tokio::test]
async fn a_withdrawn_question_is_told() {
    let mut stage = Stage::new(PermissionPolicy::Ask);
    let mut cli = stage.cli().await;
    cli.opening().await;
    cli.print(can_use("r1")).await;
    stage.event(requested).await;
    cli.print(json!({"type": "control_cancel_request", "request_id": "r1"})).await;
    stage.notice("input_withdrawn").await;
}

#[tokio::test]
async fn requests_that_are_not_served_are_answered() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    cli.opening().await;
    cli.print(json!({"type": "control_request", "request_id": "r2", "request": {"subtype": "hook_callback", "callback_id": "h"}})).await;
    assert_eq!(cli.read().await.unwrap()["response"]["subtype"], "error");
    cli.print(can_use("r3")).await;
    assert_eq!(cli.read().await.unwrap()["response"]["response"]["behavior"], "deny");
    stage.notice("permission_denied").await;
}

#[tokio::test]
async fn steering_keeps_the_input_open_until_it_is_heard() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    let first = cli.opening().await;
    stage.inputs.send(TaskInput { text: "Be brief.".to_owned(), ..TaskInput::default() }).await.unwrap();
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
    let outcome = stage.outcome().await;
    assert_eq!(outcome.usage.unwrap().turns, 2);
    assert_eq!(text_of(outcome.ending), "two");
}

#[tokio::test]
async fn lines_that_cannot_be_read_are_told_and_skipped() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    let uuid = cli.opening().await;
    cli.raw(b"this is no JSON\n\xff\xfe\n\n").await;
    let mut long = vec![b'x'; 9 << 20];
    long.push(b'\n');
    cli.raw(&long).await;
    cli.result("done").await;
    cli.lifecycle(&uuid, "completed").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    stage.notice("malformed_line").await;
    stage.notice("malformed_line").await;
    stage.notice("oversized_line").await;
    assert_eq!(text_of(stage.outcome().await.ending), "done");
}

#[tokio::test(start_paused = true)]
async fn a_cli_that_tells_nothing_of_messages_is_not_waited_for_long() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    cli.opening().await;
    cli.result("done").await;
    assert_eq!(cli.read().await, None);
    cli.exit(0);
    assert_eq!(text_of(stage.outcome().await.ending), "done");
}

#[tokio::test(start_paused = true)]
async fn lines_without_events_show_life() {
    let mut stage = Stage::new(PermissionPolicy::Deny);
    let mut cli = stage.cli().await;
    cli.opening().await;
    stage.notice("runtime_started").await;
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        cli.print(json!({"type": "system", "subtype": "thinking_tokens", "n": 7})).await;
        let step = stage.event(|kind| match kind {
            event::Kind::Progress(progress) => Some(progress.step),
            _ => None,
        });
        assert_eq!(step.await, "working");
    }
}
