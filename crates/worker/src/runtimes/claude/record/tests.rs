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

fn assistant(block: Value) -> Value {
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
fn init_is_reported_once_with_failed_servers() {
    let line = json!({"type": "system", "subtype": "init", "session_id": "s", "model": "m", "permissionMode": "acceptEdits",
        "claude_code_version": "2.1.329", "mcp_servers": [{"name": "a", "status": "connected"}, {"name": "b", "status": "failed"}]});
    let mut record = Record::new(Path::new("/w"));
    let events = read(&mut record, line.clone());
    assert_eq!(events.iter().map(code).collect::<Vec<_>>(), ["runtime_started", "mcp_server_failed"]);
    assert_eq!(record.session, "s");
    assert!(read(&mut record, line).is_empty());
}

#[test]
fn messages_thoughts_and_calls_become_events() {
    let mut record = Record::new(Path::new("/w"));
    let events = read(&mut record, assistant(json!({"type": "text", "text": "hi"})));
    let event::Kind::Message(message) = &events[0] else { panic!("{events:?}") };
    assert_eq!((message.role(), message.text.as_str()), (MessageRole::Assistant, "hi"));
    let events =
        read(&mut record, assistant(json!({"type": "thinking", "thinking": "hm", "signature": "x"})));
    let event::Kind::Message(message) = &events[0] else { panic!("{events:?}") };
    assert_eq!(message.role(), MessageRole::Thinking);
    let call = json!({"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls", "description": "List"}});
    let events = read(&mut record, assistant(call));
    let event::Kind::ToolCall(call) = &events[0] else { panic!("{events:?}") };
    assert_eq!((call.call_id.as_str(), call.tool.as_str()), ("t1", "Bash"));
    assert_eq!(call.parent_call_id, "", "the agent's own call");
    let event::Kind::Progress(progress) = &events[1] else { panic!("{events:?}") };
    assert_eq!(progress.step, "Bash: List");
    assert!(read(&mut record, assistant(json!({"type": "hologram", "x": 1}))).is_empty());
}

#[test]
fn subagent_calls_name_their_parent_and_messages_are_omitted() {
    let mut record = Record::new(Path::new("/w"));
    let mut line = assistant(json!({"type": "text", "text": "hi"}));
    line["parent_tool_use_id"] = json!("t0");
    assert!(read(&mut record, line).is_empty());
    let mut line = assistant(json!({"type": "tool_use", "id": "t1", "name": "Read", "input": {}}));
    line["parent_tool_use_id"] = json!("t0");
    let events = read(&mut record, line);
    let [event::Kind::ToolCall(call), event::Kind::Progress(_)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((call.call_id.as_str(), call.parent_call_id.as_str()), ("t1", "t0"));
}

#[test]
fn tool_results_record_written_files() {
    let mut record = Record::new(Path::new("/w"));
    for (id, path) in [("t1", "/w/src/a.rs"), ("t2", "/w/b.rs"), ("t3", "/etc/c")] {
        read(
            &mut record,
            assistant(json!({"type": "tool_use", "id": id, "name": "Write", "input": {"file_path": path}})),
        );
        let answer = json!({"type": "user", "message": {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "is_error": id == "t2", "content": [{"type": "text", "text": "x"}, {"type": "image", "source": {}}]},
        ]}});
        let events = read(&mut record, answer);
        let event::Kind::ToolResult(result) = &events[0] else { panic!("{events:?}") };
        assert_eq!(result.is_error, id == "t2");
    }
    assert_eq!(record.files.into_iter().collect::<Vec<_>>(), ["src/a.rs"]);
}

#[test]
fn failed_model_calls_are_reported_and_recorded() {
    let mut record = Record::new(Path::new("/w"));
    let retry = json!({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 10, "retry_delay_ms": 534.5, "error_status": 529, "error": "overloaded"});
    let events = read(&mut record, retry);
    assert_eq!(code(&events[0]), "api_retry");
    let mut line =
        assistant(json!({"type": "text", "text": "API Error: Request rejected (429) · slow down"}));
    line["error"] = json!("rate_limit");
    line["is_api_error_message"] = json!(true);
    line["api_error_status"] = json!(429);
    assert_eq!(code(&read(&mut record, line)[0]), "api_error");
    assert_eq!(record.api_error.unwrap().status, Some(429));
    assert!(record.last_message.is_empty());
}

#[test]
fn unknown_lines_are_accepted() {
    for line in [
        json!({"type": "stream_event", "event": {}}),
        json!({"type": "from_the_future"}),
        json!({"type": "command_lifecycle", "command_uuid": "u", "state": "queued"}),
        json!({"type": "system", "subtype": "thinking_tokens", "n": 3}),
    ] {
        serde_json::from_value::<Line>(line).unwrap();
    }
}
