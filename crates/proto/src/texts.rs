//! Every text in what workers tell, to be looked at and changed in its place. What programs go by, such as ids and
//! codes, is not among them, nor are the bytes of output.

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
            change(&mut call.tool);
            change(&mut call.input_json);
        }
        event::Kind::ToolResult(result) => change(&mut result.output),
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
        Some(value::Kind::NullValue(_) | value::Kind::NumberValue(_) | value::Kind::BoolValue(_)) | None => {}
    }
}
