//! Sanitizes texts that leave a runtime: redacts secrets, then truncates. In the other order, truncation would
//! leave a part of a secret that is not recognized. Knows nothing of where texts come from.

mod size;

use rota_proto::limits::{CHOICES, QUESTION_BYTES, REQUEST_NAME_BYTES, RESULT_TEXT_BYTES};
use rota_proto::v1::{Delivery, Failure, TaskResult, Usage, event};
use rota_proto::{permission_rules, visit_strings};
use rota_telemetry::redact::Redactor;
use serde_json::Value;

pub(crate) use self::size::too_large;

/// Limit for a message of the agent.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Limit for the input and the output of a tool.
const MAX_TOOL_BYTES: usize = 16 << 10;
/// Limit for the message of a failure, a notice or an input request.
const MAX_DETAIL_BYTES: usize = 4 << 10;
/// Limit for a progress step, and for the name and id of a tool call.
const MAX_NAME_BYTES: usize = REQUEST_NAME_BYTES;
/// Limit for strings inside JSON that is too long.
const MAX_JSON_STRING_BYTES: usize = 1 << 10;

/// A control plane would cut an open question again, and count its input as incomplete.
const _: () = assert!(MAX_TOOL_BYTES <= QUESTION_BYTES && MAX_DETAIL_BYTES <= QUESTION_BYTES);

/// Sanitizes an event, except output, which is redacted as a stream.
pub(crate) fn event(redactor: &Redactor, kind: &mut event::Kind) {
    let asked = match kind {
        event::Kind::InputRequest(request) => request.input_json.clone(),
        _ => String::new(),
    };
    visit_strings::in_event(kind, &mut |text| redactor.text(text));
    match kind {
        event::Kind::Progress(progress) => truncate(&mut progress.step, MAX_NAME_BYTES),
        event::Kind::Message(message) => truncate(&mut message.text, MAX_MESSAGE_BYTES),
        event::Kind::ToolCall(call) => {
            truncate(&mut call.call_id, MAX_NAME_BYTES);
            truncate(&mut call.parent_call_id, MAX_NAME_BYTES);
            truncate(&mut call.tool, MAX_NAME_BYTES);
            truncate_json(&mut call.input_json, MAX_TOOL_BYTES);
        }
        event::Kind::ToolResult(result) => {
            truncate(&mut result.call_id, MAX_NAME_BYTES);
            truncate(&mut result.output, MAX_TOOL_BYTES);
        }
        event::Kind::InputRequest(request) => {
            truncate(&mut request.prompt, MAX_DETAIL_BYTES);
            truncate(&mut request.tool, MAX_NAME_BYTES);
            request.choices.truncate(CHOICES);
            request.choices.iter_mut().for_each(|choice| truncate(choice, MAX_JSON_STRING_BYTES));
            request.input_incomplete |= asked.len() > MAX_TOOL_BYTES || request.input_json != asked;
            // A rule that has a secret in it is none to be kept.
            request.rules.retain(|offered| {
                let mut clean = offered.rule.clone();
                redactor.text(&mut clean);
                clean == offered.rule && clean.len() <= permission_rules::MAX_RULE
            });
            request.rules.truncate(permission_rules::MAX_SUGGESTED);
            let size = request.input_json.len();
            if size > MAX_TOOL_BYTES {
                truncate_json(&mut request.input_json, MAX_TOOL_BYTES);
                // An approval is for all of it.
                request.prompt +=
                    &format!(" WARNING: the input has {size} bytes, of which only a part is shown.");
            }
        }
        event::Kind::Notice(notice) => truncate(&mut notice.message, MAX_DETAIL_BYTES),
        event::Kind::Usage(usage) => truncate(&mut usage.model, MAX_NAME_BYTES),
        event::Kind::State(_)
        | event::Kind::Output(_)
        | event::Kind::InputReceived(_)
        | event::Kind::Change(_)
        | event::Kind::WorkEnded(_) => {}
    }
}

pub(crate) fn result(redactor: &Redactor, result: &mut TaskResult) {
    visit_strings::in_result(result, &mut |text| redactor.result(text));
    truncate(&mut result.text, RESULT_TEXT_BYTES);
}

pub(crate) fn failure(redactor: &Redactor, failure: &mut Failure) {
    visit_strings::in_failure(failure, &mut |part| text(redactor, part, MAX_DETAIL_BYTES));
}

pub(crate) fn usage(redactor: &Redactor, usage: &mut Usage) {
    visit_strings::in_usage(usage, &mut |part| text(redactor, part, MAX_NAME_BYTES));
}

pub(crate) fn delivery(redactor: &Redactor, delivery: &mut Delivery) {
    visit_strings::in_delivery(delivery, &mut |part| text(redactor, part, MAX_DETAIL_BYTES));
}

/// Sanitizes a text that becomes part of another.
pub(crate) fn text(redactor: &Redactor, text: &mut String, max: usize) {
    redactor.text(text);
    truncate(text, max);
}

/// Truncates a text to `max` bytes at a character boundary, with a note on how much is missing.
pub(crate) fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let head = text.floor_char_boundary(max.saturating_sub(40));
        let missing = text.len() - head;
        text.truncate(head);
        *text += &format!("… [{missing} bytes cut]");
    }
}

/// Truncates JSON text and keeps it valid: long strings are truncated first; if that is not enough, the beginning
/// of the text becomes the field `cut` of an object.
pub(crate) fn truncate_json(text: &mut String, max: usize) {
    if text.len() <= max {
        return;
    }
    let Ok(value) = serde_json::from_str(text) else { return truncate(text, max) };
    let shorter = shortened(value).to_string();
    *text = if shorter.len() <= max {
        shorter
    } else {
        // Escaping makes a text at most six times as long.
        truncate(text, max / 8);
        serde_json::json!({ "cut": text }).to_string()
    };
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            truncate(&mut text, MAX_JSON_STRING_BYTES);
            Value::String(text)
        }
        Value::Array(items) => items.into_iter().map(shortened).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, shortened(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
