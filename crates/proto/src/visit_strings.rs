//! Visitors over every string that a worker can put into an event, a failure, a usage or a result, for redaction and
//! bounds. A visitor may replace strings in place.
//!
//! Not visited is what programs match on (codes, ids of input requests) and the bytes of output. The id of a tool call
//! is visited: a visitor must replace it alike in the call and in its result.

use pbjson_types::{Struct, Value, value};

use crate::v1::{Delivery, Failure, TaskResult, Usage, event};

/// Visits the strings of an event.
pub fn in_event(kind: &mut event::Kind, visit: &mut dyn FnMut(&mut String)) {
    match kind {
        event::Kind::State(change) => {
            visit(&mut change.message);
            change.failure.iter_mut().for_each(|failure| in_failure(failure, visit));
        }
        event::Kind::Progress(progress) => visit(&mut progress.step),
        event::Kind::Output(_) | event::Kind::WorkEnded(_) => {}
        event::Kind::Message(message) => visit(&mut message.text),
        event::Kind::ToolCall(call) => {
            visit(&mut call.call_id);
            visit(&mut call.tool);
            visit(&mut call.input_json);
            visit(&mut call.parent_call_id);
        }
        event::Kind::ToolResult(result) => {
            visit(&mut result.call_id);
            visit(&mut result.output);
        }
        event::Kind::Usage(usage) => in_usage(usage, visit),
        event::Kind::InputRequest(request) => {
            visit(&mut request.prompt);
            visit(&mut request.tool);
            visit(&mut request.input_json);
            request.choices.iter_mut().for_each(visit);
        }
        event::Kind::InputReceived(received) => {
            if let Some(input) = &mut received.input {
                visit(&mut input.text);
                visit(&mut input.updated_input_json);
            }
        }
        event::Kind::Notice(notice) => visit(&mut notice.message),
        event::Kind::Change(change) => visit(&mut change.message),
    }
}

/// Visits the message, the hint and the limit's name of a failure.
pub fn in_failure(failure: &mut Failure, visit: &mut dyn FnMut(&mut String)) {
    visit(&mut failure.message);
    visit(&mut failure.hint);
    if let Some(limit) = &mut failure.limit {
        visit(&mut limit.name);
    }
}

/// Visits the model name of a usage report.
pub fn in_usage(usage: &mut Usage, visit: &mut dyn FnMut(&mut String)) {
    visit(&mut usage.model);
}

/// Visits the text, the file names, the structured data of a result, including the names of its fields, and its delivery.
pub fn in_result(result: &mut TaskResult, visit: &mut dyn FnMut(&mut String)) {
    visit(&mut result.text);
    result.files.iter_mut().for_each(&mut *visit);
    result.data.iter_mut().for_each(|data| in_struct(data, visit));
    result.delivery.iter_mut().for_each(|delivery| in_delivery(delivery, visit));
}

/// Visits branches, commits and the address of the request.
pub fn in_delivery(delivery: &mut Delivery, visit: &mut dyn FnMut(&mut String)) {
    visit(&mut delivery.branch);
    visit(&mut delivery.commit);
    visit(&mut delivery.base_commit);
    if let Some(opened) = &mut delivery.pull_request {
        visit(&mut opened.url);
        visit(&mut opened.base);
    }
}

fn in_struct(data: &mut Struct, visit: &mut dyn FnMut(&mut String)) {
    let fields = std::mem::take(&mut data.fields).into_iter();
    data.fields = fields
        .map(|(mut name, mut value)| {
            visit(&mut name);
            in_value(&mut value, visit);
            (name, value)
        })
        .collect();
}

fn in_value(value: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    match &mut value.kind {
        Some(value::Kind::StringValue(text)) => visit(text),
        Some(value::Kind::StructValue(data)) => in_struct(data, visit),
        Some(value::Kind::ListValue(list)) => list.values.iter_mut().for_each(|value| in_value(value, visit)),
        // Visited as its digits; a number whose digits were replaced becomes a string.
        Some(value::Kind::NumberValue(number)) => {
            let digits = number.to_string();
            let mut text = digits.clone();
            visit(&mut text);
            if text != digits {
                value.kind = Some(value::Kind::StringValue(text));
            }
        }
        Some(value::Kind::NullValue(_) | value::Kind::BoolValue(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_numbers_unless_replaced() {
        let number = |number| Value { kind: Some(value::Kind::NumberValue(number)) };
        let fields = [("a", 12_345_678.0), ("b", 0.5), ("c", 912_345_678.0)];
        let fields = fields.map(|(name, value)| (name.to_owned(), number(value)));
        let mut result = TaskResult { data: Some(Struct { fields: fields.into() }), ..TaskResult::default() };
        in_result(&mut result, &mut |text| *text = text.replace("12345678", "x"));
        let fields = result.data.unwrap().fields;
        let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
        assert_eq!(fields["a"], text("x"));
        assert_eq!(fields["b"], number(0.5));
        assert_eq!(fields["c"], text("9x"));
    }
}
