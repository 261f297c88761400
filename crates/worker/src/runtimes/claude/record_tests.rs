//! Tests of the events that lines become.

use serde_json::json;

use super::super::lines::Line;
use super::*;

fn read(record: &mut Record, line: Value) -> Vec<event::Kind> {
    match serde_json::from_value(line).unwrap() {
        Line::System(line) => record.system(line),
        Line::Assistant(line) => record.assistant(&line),
        Line::User(line) => record.user(&line.message),
        Line::Result(line) => record.result(*line),
        other => panic!("{other:?}"),
    }
}

fn said(block: Value) -> Value {
    json!({"type": "assistant", "parent_tool_use_id": null, "session_id": "s", "uuid": "u", "message": {
        "id": "msg_1", "role": "assistant", "model": "m", "stop_reason": null, "content": [block], "usage": {"output_tokens": 1},
    }})
}

fn code(kind: &event::Kind) -> &str {
    match kind {
        event::Kind::Notice(notice) => &notice.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn init_is_told_once_with_servers_that_are_missing() {
    let line = json!({"type": "system", "subtype": "init", "session_id": "s", "model": "m", "permissionMode": "acceptEdits",
        "claude_code_version": "2.1.329", "mcp_servers": [{"name": "a", "status": "connected"}, {"name": "b", "status": "failed"}]});
    let mut record = Record::new(Path::new("/w"));
    let told = read(&mut record, line.clone());
    assert_eq!(told.iter().map(code).collect::<Vec<_>>(), ["runtime_started", "mcp_server_failed"]);
    assert_eq!(record.session, "s");
    assert!(read(&mut record, line).is_empty());
}

#[test]
fn words_thoughts_and_calls() {
    let mut record = Record::new(Path::new("/w"));
    let told = read(&mut record, said(json!({"type": "text", "text": "hi"})));
    let event::Kind::Message(message) = &told[0] else { panic!("{told:?}") };
    assert_eq!((message.role(), message.text.as_str()), (MessageRole::Assistant, "hi"));
    let told = read(&mut record, said(json!({"type": "thinking", "thinking": "hm", "signature": "x"})));
    let event::Kind::Message(message) = &told[0] else { panic!("{told:?}") };
    assert_eq!(message.role(), MessageRole::Thinking);
    let call = json!({"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls", "description": "List"}});
    let told = read(&mut record, said(call));
    let event::Kind::ToolCall(call) = &told[0] else { panic!("{told:?}") };
    assert_eq!((call.call_id.as_str(), call.tool.as_str()), ("t1", "Bash"));
    let event::Kind::Progress(progress) = &told[1] else { panic!("{told:?}") };
    assert_eq!(progress.step, "Bash: List");
    assert!(read(&mut record, said(json!({"type": "hologram", "x": 1}))).is_empty());
}

#[test]
fn a_subagents_words_are_left_out_and_its_calls_are_not() {
    let mut record = Record::new(Path::new("/w"));
    let mut line = said(json!({"type": "text", "text": "hi"}));
    line["parent_tool_use_id"] = json!("t0");
    assert!(read(&mut record, line).is_empty());
    let mut line = said(json!({"type": "tool_use", "id": "t1", "name": "Read", "input": {}}));
    line["parent_tool_use_id"] = json!("t0");
    assert_eq!(read(&mut record, line).len(), 2);
}

#[test]
fn results_of_tools_and_the_files_they_leave() {
    let mut record = Record::new(Path::new("/w"));
    for (id, path) in [("t1", "/w/src/a.rs"), ("t2", "/w/b.rs"), ("t3", "/etc/c")] {
        read(
            &mut record,
            said(json!({"type": "tool_use", "id": id, "name": "Write", "input": {"file_path": path}})),
        );
        let answer = json!({"type": "user", "message": {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "is_error": id == "t2", "content": [{"type": "text", "text": "x"}, {"type": "image", "source": {}}]},
        ]}});
        let told = read(&mut record, answer);
        let event::Kind::ToolResult(result) = &told[0] else { panic!("{told:?}") };
        assert_eq!(result.is_error, id == "t2");
    }
    assert_eq!(record.files.into_iter().collect::<Vec<_>>(), ["src/a.rs"]);
}

#[test]
fn failing_model_calls_are_told_and_remembered() {
    let mut record = Record::new(Path::new("/w"));
    let retry = json!({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 10, "retry_delay_ms": 534.5, "error_status": 529, "error": "overloaded"});
    let told = read(&mut record, retry);
    assert_eq!(code(&told[0]), "api_retry");
    let mut line = said(json!({"type": "text", "text": "API Error: Request rejected (429) · slow down"}));
    line["error"] = json!("rate_limit");
    line["is_api_error_message"] = json!(true);
    line["api_error_status"] = json!(429);
    assert_eq!(code(&read(&mut record, line)[0]), "api_error");
    assert_eq!(record.api_error.unwrap().status, Some(429));
    assert!(record.last_words.is_empty());
}

#[test]
fn unknown_kinds_are_let_through() {
    for line in [
        json!({"type": "stream_event", "event": {}}),
        json!({"type": "from_the_future"}),
        json!({"type": "command_lifecycle", "command_uuid": "u", "state": "queued"}),
        json!({"type": "system", "subtype": "thinking_tokens", "n": 3}),
    ] {
        serde_json::from_value::<Line>(line).unwrap();
    }
}
