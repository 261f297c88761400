//! Constructors of events. Texts may have any length: they are sanitized later. Knows nothing of the CLI.

use rota_proto::v1::{
    AgentMessage, MessageRole, Output, OutputStream, Progress, Severity, ToolCall, ToolResult, event,
};
use serde_json::Value;

pub(super) fn message(role: MessageRole, text: &str) -> event::Kind {
    event::Kind::Message(AgentMessage { role: role.into(), text: text.to_owned(), number: 0 })
}

pub(super) fn notice(severity: Severity, code: &str, message: impl AsRef<str>) -> event::Kind {
    crate::report::notice(severity, code, message.as_ref())
}

pub(super) fn progress(fraction: f64, step: &str) -> event::Kind {
    event::Kind::Progress(Progress { fraction, step: step.to_owned() })
}

/// Returns the call of a tool: by a subagent, if a call is named that started one.
pub(super) fn call(id: &str, tool: &str, input: &Value, parent: Option<&str>) -> event::Kind {
    event::Kind::ToolCall(ToolCall {
        call_id: id.to_owned(),
        tool: tool.to_owned(),
        input_json: input.to_string(),
        parent_call_id: parent.unwrap_or_default().to_owned(),
    })
}

pub(super) fn result(id: &str, output: &str, is_error: bool) -> event::Kind {
    event::Kind::ToolResult(ToolResult { call_id: id.to_owned(), output: output.to_owned(), is_error })
}

pub(super) fn stderr(data: &[u8]) -> event::Kind {
    event::Kind::Output(Output {
        stream: OutputStream::Stderr.into(),
        data: bytes::Bytes::copy_from_slice(data),
        dropped_bytes: 0,
    })
}
