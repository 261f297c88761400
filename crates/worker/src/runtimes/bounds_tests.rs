//! Tests of what is told of long texts, with secrets that are made for each run.

use rota_proto::v1::{AgentMessage, InputRequest, Notice, Progress, ToolCall, ToolResult};
use serde_json::json;

use super::*;

/// Everything that a runtime tells with a text in it.
fn events(text: &str) -> Vec<event::Kind> {
    let json = json!({ "x": text }).to_string();
    vec![
        event::Kind::Progress(Progress { step: text.to_owned(), ..Progress::default() }),
        event::Kind::Message(AgentMessage { text: text.to_owned(), ..AgentMessage::default() }),
        event::Kind::ToolCall(ToolCall {
            call_id: text.to_owned(),
            tool: text.to_owned(),
            input_json: json.clone(),
        }),
        // Not all that programs call JSON is.
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
fn no_cut_leaves_a_part_of_a_secret() {
    let secret = uuid::Uuid::new_v4().to_string();
    let redactor = Redactor::new([secret.as_str()]);
    for bound in [NAME, INNER, SENTENCE, TOOL, MESSAGE, RESULT] {
        for before in (bound - 90..bound).step_by(9) {
            let long = format!("{}{secret}{}", "x".repeat(before), "y".repeat(bound.max(TOOL)));
            let mut told = String::new();
            for mut kind in events(&long) {
                event(&redactor, &mut kind);
                told += &format!("{kind:?}");
            }
            let mut ended = TaskResult { text: long.clone(), ..TaskResult::default() };
            result(&redactor, &mut ended);
            let mut failed = Failure { message: long.clone(), ..Failure::default() };
            failure(&redactor, &mut failed);
            let mut part = long;
            text(&redactor, &mut part, bound);
            told += &format!("{ended:?}{failed:?}{part}");
            assert!(!told.contains(&secret[..8]), "{bound} {before}");
            assert!(told.contains("bytes cut]"));
        }
    }
}

#[test]
fn a_call_and_its_result_keep_the_same_id() {
    let secret = uuid::Uuid::new_v4().to_string();
    let redactor = Redactor::new([secret.as_str()]);
    let id = format!("{}-{secret}-{}", "x".repeat(100), "y".repeat(200));
    let mut call = event::Kind::ToolCall(ToolCall { call_id: id.clone(), ..ToolCall::default() });
    let mut answer = event::Kind::ToolResult(ToolResult { call_id: id, ..ToolResult::default() });
    event(&redactor, &mut call);
    event(&redactor, &mut answer);
    let (event::Kind::ToolCall(call), event::Kind::ToolResult(answer)) = (call, answer) else { panic!() };
    assert_eq!(call.call_id, answer.call_id);
    assert!(call.call_id.contains("[redacted]") && call.call_id.len() <= NAME, "{}", call.call_id);
}

#[test]
fn texts_are_cut_between_characters() {
    let cut = |text: &str, most| {
        let mut text = text.to_owned();
        cut(&mut text, most);
        text
    };
    assert_eq!(cut("short", 100), "short");
    for most in 50..60 {
        let text = cut(&"ä".repeat(100), most);
        assert!(text.len() <= most, "{} > {most}", text.len());
        assert!(text.ends_with("bytes cut]"), "{text}");
    }
}

#[test]
fn long_json_stays_json() {
    let cut = |value: Value| {
        let mut text = value.to_string();
        cut_json(&mut text, TOOL);
        text
    };
    for value in [
        json!({"content": "x\n\"".repeat(20_000)}),
        json!({"list": (0..20_000).map(|n| format!("\u{1}{n}")).collect::<Vec<_>>()}),
    ] {
        let text = cut(value);
        assert!(text.len() <= TOOL, "{}", text.len());
        serde_json::from_str::<Value>(&text).unwrap();
    }
    assert_eq!(cut(json!({"a": 1})), r#"{"a":1}"#);
}
