//! What may be told of a text: first secrets go, then what is too long. The other way round the cut would leave
//! a part of a secret, which nobody recognizes. Knows nothing of where texts come from.

use rota_proto::texts;
use rota_proto::v1::{Failure, TaskResult, event};
use rota_telemetry::redact::Redactor;
use serde_json::Value;

/// Longest message.
const MESSAGE: usize = 64 << 10;
/// Longest text that goes into a tool or comes out.
const TOOL: usize = 16 << 10;
/// Longest text of a result.
const RESULT: usize = 256 << 10;
/// Longest sentence of a failure, notice or question.
const SENTENCE: usize = 4 << 10;
/// Longest word on what is being done; longest name or id of a tool's call.
const NAME: usize = 256;
/// Strings inside JSON that is too long are cut to this first.
const INNER: usize = 1 << 10;

/// An event. Its output is not looked at: that is a stream.
pub(crate) fn event(redactor: &Redactor, kind: &mut event::Kind) {
    texts::of_event(kind, &mut |text| redactor.text(text));
    match kind {
        event::Kind::Progress(progress) => cut(&mut progress.step, NAME),
        event::Kind::Message(message) => cut(&mut message.text, MESSAGE),
        event::Kind::ToolCall(call) => {
            cut(&mut call.call_id, NAME);
            cut(&mut call.tool, NAME);
            cut_json(&mut call.input_json, TOOL);
        }
        event::Kind::ToolResult(result) => {
            cut(&mut result.call_id, NAME);
            cut(&mut result.output, TOOL);
        }
        event::Kind::InputRequest(request) => {
            cut(&mut request.prompt, SENTENCE);
            cut_json(&mut request.input_json, TOOL);
        }
        event::Kind::Notice(notice) => cut(&mut notice.message, SENTENCE),
        event::Kind::State(_)
        | event::Kind::Output(_)
        | event::Kind::Usage(_)
        | event::Kind::InputGiven(_)
        | event::Kind::Change(_) => {}
    }
}

/// A result.
pub(crate) fn result(redactor: &Redactor, result: &mut TaskResult) {
    texts::of_result(result, &mut |text| redactor.text(text));
    cut(&mut result.text, RESULT);
}

/// A failure.
pub(crate) fn failure(redactor: &Redactor, failure: &mut Failure) {
    texts::of_failure(failure, &mut |text| redactor.text(text));
    cut(&mut failure.message, SENTENCE);
}

/// A text that becomes part of another.
pub(crate) fn text(redactor: &Redactor, text: &mut String, most: usize) {
    redactor.text(text);
    cut(text, most);
}

/// Cuts a text to at most so many bytes on a character's border; it says at its end how much is missing.
pub(crate) fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let head = text.floor_char_boundary(most.saturating_sub(40));
        let missing = text.len() - head;
        text.truncate(head);
        *text += &format!("… [{missing} bytes cut]");
    }
}

/// Cuts JSON text. It stays valid JSON: long strings are cut, and if that is not enough, its beginning stands as one
/// string under `cut`.
pub(crate) fn cut_json(text: &mut String, most: usize) {
    if text.len() <= most {
        return;
    }
    let Ok(value) = serde_json::from_str(text) else { return cut(text, most) };
    let shorter = shortened(value).to_string();
    *text = if shorter.len() <= most {
        shorter
    } else {
        // Escaping makes a text at most six times as long.
        cut(text, most / 8);
        serde_json::json!({ "cut": text }).to_string()
    };
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            cut(&mut text, INNER);
            Value::String(text)
        }
        Value::Array(items) => items.into_iter().map(shortened).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, shortened(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
