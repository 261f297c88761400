//! Every text in what workers tell, to be looked at and changed in its place. What others go by, such as codes and the
//! ids of requests, is not among them, nor are the bytes of output. The id of a tool's call is: whoever changes it must
//! do so alike in the call and its result.

use pbjson_types::{Struct, Value, value};

use crate::v1::{Failure, TaskResult, Usage, event};

/// Those of an event.
pub fn of_event(kind: &mut event::Kind, change: &mut dyn FnMut(&mut String)) {
    match kind {
        event::Kind::State(step) => {
            change(&mut step.message);
            step.failure.iter_mut().for_each(|failure| of_failure(failure, change));
        }
        event::Kind::Progress(progress) => change(&mut progress.step),
        event::Kind::Output(_) => {}
        event::Kind::Message(message) => change(&mut message.text),
        event::Kind::ToolCall(call) => {
            change(&mut call.call_id);
            change(&mut call.tool);
            change(&mut call.input_json);
        }
        event::Kind::ToolResult(result) => {
            change(&mut result.call_id);
            change(&mut result.output);
        }
        event::Kind::Usage(usage) => of_usage(usage, change),
        event::Kind::InputRequest(request) => {
            change(&mut request.prompt);
            change(&mut request.tool);
            change(&mut request.input_json);
            request.choices.iter_mut().for_each(change);
        }
        event::Kind::InputGiven(given) => given.input.iter_mut().for_each(|input| change(&mut input.text)),
        event::Kind::Notice(notice) => change(&mut notice.message),
        event::Kind::Change(changed) => change(&mut changed.message),
    }
}

/// Those of a failure.
pub fn of_failure(failure: &mut Failure, change: &mut dyn FnMut(&mut String)) {
    change(&mut failure.message);
    change(&mut failure.hint);
}

/// Those of a usage.
pub fn of_usage(usage: &mut Usage, change: &mut dyn FnMut(&mut String)) {
    change(&mut usage.model);
}

/// Those of a result.
pub fn of_result(result: &mut TaskResult, change: &mut dyn FnMut(&mut String)) {
    change(&mut result.text);
    result.files.iter_mut().for_each(&mut *change);
    result.data.iter_mut().for_each(|data| of_struct(data, change));
}

fn of_struct(data: &mut Struct, change: &mut dyn FnMut(&mut String)) {
    let fields = std::mem::take(&mut data.fields).into_iter();
    data.fields = fields
        .map(|(mut name, mut value)| {
            change(&mut name);
            of_value(&mut value, change);
            (name, value)
        })
        .collect();
}

fn of_value(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
    match &mut value.kind {
        Some(value::Kind::StringValue(text)) => change(text),
        Some(value::Kind::StructValue(data)) => of_struct(data, change),
        Some(value::Kind::ListValue(list)) => list.values.iter_mut().for_each(|one| of_value(one, change)),
        // One whose digits change is a number no longer.
        Some(value::Kind::NumberValue(number)) => {
            let digits = number.to_string();
            let mut text = digits.clone();
            change(&mut text);
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
    fn numbers_are_looked_at_as_texts_and_stay_what_they_are() {
        let number = |number| Value { kind: Some(value::Kind::NumberValue(number)) };
        let fields = [("a", 12_345_678.0), ("b", 0.5), ("c", 912_345_678.0)];
        let fields = fields.map(|(name, value)| (name.to_owned(), number(value)));
        let mut result = TaskResult { data: Some(Struct { fields: fields.into() }), ..TaskResult::default() };
        of_result(&mut result, &mut |text| *text = text.replace("12345678", "x"));
        let fields = result.data.unwrap().fields;
        let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
        assert_eq!((&fields["a"], &fields["b"], &fields["c"]), (&text("x"), &number(0.5), &text("9x")));
    }
}
