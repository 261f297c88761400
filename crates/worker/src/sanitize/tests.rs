//! Tests of sanitizing long texts, with secrets generated for each run.

use rota_proto::v1::{AgentMessage, InputRequest, Notice, PermissionRule, Progress, ToolCall, ToolResult};
use serde_json::json;

use super::*;

/// One event of each kind that contains a text.
fn events(text: &str) -> Vec<event::Kind> {
    let json = json!({ "x": text }).to_string();
    vec![
        event::Kind::Progress(Progress { step: text.to_owned(), ..Progress::default() }),
        event::Kind::Message(AgentMessage { text: text.to_owned(), ..AgentMessage::default() }),
        event::Kind::ToolCall(ToolCall {
            call_id: text.to_owned(),
            tool: text.to_owned(),
            input_json: json.clone(),
            parent_call_id: text.to_owned(),
        }),
        // Programs may send invalid JSON.
        event::Kind::ToolCall(ToolCall { input_json: text.to_owned(), ..ToolCall::default() }),
        event::Kind::ToolResult(ToolResult {
            call_id: text.to_owned(),
            output: text.to_owned(),
            is_error: false,
        }),
        event::Kind::InputRequest(InputRequest {
            prompt: text.to_owned(),
            input_json: json,
            ..InputRequest::default()
        }),
        event::Kind::Notice(Notice { message: text.to_owned(), ..Notice::default() }),
    ]
}

#[test]
fn truncation_leaves_no_partial_secret() {
    let secret = uuid::Uuid::new_v4().to_string();
    let redactor = Redactor::new([secret.as_str()]);
    for bound in [
        MAX_NAME_BYTES,
        MAX_JSON_STRING_BYTES,
        MAX_DETAIL_BYTES,
        MAX_TOOL_BYTES,
        MAX_MESSAGE_BYTES,
        RESULT_TEXT_BYTES,
    ] {
        for before in (bound - 90..bound).step_by(9) {
            let long = format!("{}{secret}{}", "x".repeat(before), "y".repeat(bound.max(MAX_TOOL_BYTES)));
            let mut clean = String::new();
            for mut kind in events(&long) {
                event(&redactor, &mut kind);
                clean += &format!("{kind:?}");
            }
            let mut ended = TaskResult { text: long.clone(), ..TaskResult::default() };
            result(&redactor, &mut ended);
            let mut failed = Failure { message: long.clone(), ..Failure::default() };
            failure(&redactor, &mut failed);
            let mut part = long;
            text(&redactor, &mut part, bound);
            clean += &format!("{ended:?}{failed:?}{part}");
            assert!(!clean.contains(&secret[..8]), "{bound} {before}");
            assert!(clean.contains("bytes cut]"));
        }
    }
}

#[test]
fn call_and_result_keep_the_same_id() {
    let secret = uuid::Uuid::new_v4().to_string();
    let redactor = Redactor::new([secret.as_str()]);
    let id = format!("{}-{secret}-{}", "x".repeat(100), "y".repeat(200));
    let mut call = event::Kind::ToolCall(ToolCall { call_id: id.clone(), ..ToolCall::default() });
    let mut inner = event::Kind::ToolCall(ToolCall { parent_call_id: id.clone(), ..ToolCall::default() });
    let mut answer = event::Kind::ToolResult(ToolResult { call_id: id, ..ToolResult::default() });
    event(&redactor, &mut call);
    event(&redactor, &mut inner);
    event(&redactor, &mut answer);
    let event::Kind::ToolCall(inner) = inner else { panic!() };
    let (event::Kind::ToolCall(call), event::Kind::ToolResult(answer)) = (call, answer) else { panic!() };
    assert_eq!(call.call_id, answer.call_id);
    assert_eq!(inner.parent_call_id, call.call_id);
    assert!(call.call_id.contains("[redacted]") && call.call_id.len() <= MAX_NAME_BYTES, "{}", call.call_id);
}

#[test]
fn texts_are_truncated_at_character_boundaries() {
    let truncated = |text: &str, max| {
        let mut text = text.to_owned();
        truncate(&mut text, max);
        text
    };
    assert_eq!(truncated("short", 100), "short");
    for max in 50..60 {
        let text = truncated(&"ä".repeat(100), max);
        assert!(text.len() <= max, "{} > {max}", text.len());
        assert!(text.ends_with("bytes cut]"), "{text}");
    }
}

#[test]
fn truncated_json_stays_valid() {
    let truncated = |value: Value| {
        let mut text = value.to_string();
        truncate_json(&mut text, MAX_TOOL_BYTES);
        text
    };
    for value in [
        json!({"content": "x\n\"".repeat(20_000)}),
        json!({"list": (0..20_000).map(|n| format!("\u{1}{n}")).collect::<Vec<_>>()}),
    ] {
        let text = truncated(value);
        assert!(text.len() <= MAX_TOOL_BYTES, "{}", text.len());
        serde_json::from_str::<Value>(&text).unwrap();
    }
    assert_eq!(truncated(json!({"a": 1})), r#"{"a":1}"#);
}

#[test]
fn questions_and_failures_are_bounded() {
    let long = "x".repeat(100_000);
    let rule = PermissionRule { rule: long.clone(), ..PermissionRule::default() };
    let short = PermissionRule { rule: "Read".to_owned(), ..PermissionRule::default() };
    let request = InputRequest {
        tool: long.clone(),
        choices: vec![long.clone(); 1000],
        rules: [vec![rule], vec![short.clone(); 100]].concat(),
        ..InputRequest::default()
    };
    let mut kind = event::Kind::InputRequest(request);
    event(&Redactor::default(), &mut kind);
    let event::Kind::InputRequest(request) = kind else { panic!() };
    let choices: usize = request.choices.iter().map(String::len).sum();
    assert!(request.tool.len() <= MAX_NAME_BYTES && choices <= CHOICES * MAX_JSON_STRING_BYTES);
    assert_eq!(request.rules, vec![short; permission_rules::MAX_SUGGESTED]);
    let mut failed = Failure { message: long.clone(), hint: long, ..Failure::default() };
    failure(&Redactor::default(), &mut failed);
    assert!(failed.message.len().max(failed.hint.len()) <= MAX_DETAIL_BYTES);
}

#[test]
fn question_warns_of_cut_input() {
    let asked = |length: usize| {
        let input_json = json!({"command": "x".repeat(length)}).to_string();
        let request = InputRequest { prompt: "Allow?".to_owned(), input_json, ..InputRequest::default() };
        let mut kind = event::Kind::InputRequest(request);
        event(&Redactor::default(), &mut kind);
        // Sanitized by the runtime, and again by the session.
        event(&Redactor::default(), &mut kind);
        let event::Kind::InputRequest(request) = kind else { panic!() };
        request.prompt
    };
    assert_eq!(asked(100), "Allow?");
    assert!(asked(20_000).ends_with("20014 bytes, of which only a part is shown."), "{}", asked(20_000));
}

#[test]
fn questions_stay_within_those_of_control_planes() {
    let long = "x".repeat(4 * QUESTION_BYTES);
    let input_json = json!({ "command": long }).to_string();
    let mut kind =
        event::Kind::InputRequest(InputRequest { prompt: long, input_json, ..InputRequest::default() });
    event(&Redactor::default(), &mut kind);
    let event::Kind::InputRequest(request) = kind else { panic!("no request") };
    assert!(request.input_incomplete);
    assert!(request.prompt.len() <= QUESTION_BYTES && request.input_json.len() <= QUESTION_BYTES);
}
