//! Messages from HTTP requests: the body in JSON, parameters of the query, and variables of the path.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};
use tonic::Status;

use crate::routes::{Body, Route};
use crate::status::{self, invalid};
use crate::values::{self, MAX_VALUES, Unparsed};

/// The parts of a request besides its body.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    /// Fields of the path, by their names in the protos.
    pub(crate) path: Vec<(String, String)>,
    /// Query of the URL, with its percent-encoding.
    pub(crate) query: String,
    /// Values of fields that are sent as headers.
    pub(crate) headers: Vec<HeaderField>,
}

/// Field whose value is in a header.
#[derive(Debug, Clone)]
pub(crate) struct HeaderField {
    /// Name of the field in the protos.
    pub(crate) field: &'static str,
    pub(crate) value: String,
    /// Whether it replaces a value of the query.
    pub(crate) replaces: bool,
}

/// Headers that have the value of a field, if the request has one of that name, and whether they replace one of the query.
pub(crate) const FIELDS_OF_HEADERS: &[(&str, &str, bool)] = &[
    ("idempotency-key", "idempotency_key", false),
    // Server-sent events continue from the last id that the client has received: a browser that reconnects repeats the query
    // of its first request.
    ("last-event-id", "after_log_seq", true),
    ("last-event-id", "token", true),
];

/// Returns the message of a request.
pub(crate) fn message(
    route: &Route,
    parameters: &Parameters,
    body: &[u8],
) -> Result<DynamicMessage, Box<Status>> {
    let input = route.call.input();
    let mut root = match &route.body {
        Body::None if body.is_empty() => Map::new(),
        Body::None => return Err(invalid("the call takes no body", "leave the body away")),
        Body::Message if body.is_empty() => Map::new(),
        Body::Message => match json(body)? {
            Value::Object(object) => object,
            _ => return Err(invalid("the body is not a JSON object", "send an object")),
        },
        Body::Field(field) => {
            let field = input
                .get_field_by_name(field)
                .ok_or_else(|| Box::new(Status::internal("the body's field does not exist")))?;
            let value = if body.is_empty() { Value::Object(Map::new()) } else { json(body)? };
            Map::from_iter([(field.json_name().to_owned(), value)])
        }
    };
    if route.body != Body::Message {
        for (name, value) in url::form_urlencoded::parse(parameters.query.as_bytes()) {
            insert(&mut root, &input, &name, &value, Source::Query)?;
        }
    } else if !parameters.query.is_empty() {
        return Err(invalid(
            "the call has all of its fields in the body, and takes no parameters",
            "move the parameters into the JSON object of the body",
        ));
    }
    for header in &parameters.headers {
        if let Some(field) = input.get_field_by_name(header.field)
            && (header.replaces || !root.contains_key(field.json_name()))
        {
            root.remove(field.json_name());
            insert(&mut root, &input, header.field, &header.value, Source::Query)?;
        }
    }
    for (name, value) in &parameters.path {
        insert(&mut root, &input, name, value, Source::Path)?;
    }
    let mut root = Value::Object(root);
    place_expressions(&input, &mut root);
    DynamicMessage::deserialize(input, root)
        .map_err(|error| invalid(&format!("the request is invalid: {error}"), NAMES))
}

/// Message that has expressions in place of its fields, and of those of its parts.
const STEP: &str = "rota.v1.WorkflowStep";

/// Moves expressions in place of a number into the fields that messages have for them, as files have them:
/// `maxParallel: "${{ inputs.width }}"`.
fn place_expressions(message: &MessageDescriptor, value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    if message.full_name() == STEP {
        rota_proto::expressions::place(object);
    }
    let mut moved = Vec::new();
    for (name, value) in object.iter_mut() {
        let found = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        let Some(field) = found else { continue };
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        match (kind, value) {
            (Kind::Message(inner), Value::Array(list)) => {
                list.iter_mut().for_each(|one| place_expressions(&inner, one));
            }
            (Kind::Message(inner), Value::Object(map)) if field.is_map() => {
                map.values_mut().for_each(|one| place_expressions(&inner, one));
            }
            (Kind::Message(inner), value) => place_expressions(&inner, value),
            (Kind::Int32, Value::String(text)) if !text.is_empty() && text.parse::<i32>().is_err() => {
                moved.extend(expression_of(&field).map(|place| (name.clone(), place.json_name().to_owned())));
            }
            _ => {}
        }
    }
    for (name, place) in moved {
        if !object.contains_key(&place)
            && let Some(expression) = object.remove(&name)
        {
            object.insert(place, expression);
        }
    }
}

/// Returns the field for an expression in place of a number.
pub(crate) fn expression_of(number: &FieldDescriptor) -> Option<FieldDescriptor> {
    number.parent_message().get_field_by_name(&format!("{}_expression", number.name()))
}

const NAMES: &str = "GET /api/v1/openapi.json describes all calls and their fields";

fn json(body: &[u8]) -> Result<Value, Box<Status>> {
    values::parse(body).map_err(|why| match why {
        Unparsed::TooMany => {
            status::error("BODY_TOO_LARGE", &format!("the body has more than {MAX_VALUES} values"), "")
        }
        Unparsed::Invalid(error) => invalid(&format!("the body is no valid JSON: {error}"), ""),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Path,
    Query,
}

/// Puts a value in its place: `filter.owner=me`, `filter.labels[team]=web`. A field of the path replaces that of the body.
fn insert(
    root: &mut Map<String, Value>,
    message: &MessageDescriptor,
    name: &str,
    value: &str,
    source: Source,
) -> Result<(), Box<Status>> {
    let unknown = || invalid(&format!("parameter {name:?} is unknown"), NAMES);
    // The key of a map may contain dots.
    let (fields, key) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((fields, key)) => (fields, Some(key)),
        None => (name, None),
    };
    let (mut object, mut message, mut path) = (root, message.clone(), fields.split('.').peekable());
    while let Some(part) = path.next() {
        let field = message
            .get_field_by_json_name(part)
            .or_else(|| message.get_field_by_name(part))
            .ok_or_else(unknown)?;
        let json_name = field.json_name().to_owned();
        if path.peek().is_some() {
            let Kind::Message(next) = field.kind() else { return Err(unknown()) };
            if field.is_list() || field.is_map() {
                return Err(unknown());
            }
            let next_object = object.entry(json_name).or_insert_with(|| Value::Object(Map::new()));
            object = next_object.as_object_mut().ok_or_else(unknown)?;
            message = next;
            continue;
        }
        let leaf = leaf(&field, name, value)?;
        if field.is_map() {
            let map = object.entry(json_name).or_insert_with(|| Value::Object(Map::new()));
            let (Some(map), Some(key)) = (map.as_object_mut(), key) else { return Err(unknown()) };
            map.insert(key.to_owned(), leaf);
        } else if key.is_some() {
            return Err(unknown());
        } else if field.is_list() {
            let list = object.entry(json_name).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut().ok_or_else(unknown)?.push(leaf);
        } else if object.insert(json_name, leaf).is_some() && source == Source::Query {
            return Err(invalid(&format!("parameter {name:?} is given twice"), ""));
        }
    }
    Ok(())
}

/// Converts the text of a parameter to JSON. Numbers stay text, as the JSON form of protobuf allows.
fn leaf(field: &FieldDescriptor, name: &str, value: &str) -> Result<Value, Box<Status>> {
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    Ok(match kind {
        Kind::Bool => match value {
            "true" | "" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return Err(invalid(&format!("parameter {name:?} is neither true nor false"), "")),
        },
        Kind::Enum(_) if value.parse::<i32>().is_ok() => {
            value.parse::<i32>().map_or(Value::Null, Value::from)
        }
        Kind::Message(message) if !message.full_name().starts_with("google.protobuf.") => {
            let hint = format!("name one of its fields, for example {name}.x=…");
            return Err(invalid(&format!("parameter {name:?} has fields of its own"), &hint));
        }
        _ => Value::String(value.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_get_the_fields_for_them() {
        let message = crate::pool().unwrap().get_message_by_name("rota.v1.WorkflowSpec").unwrap();
        let data = json!({ "forEach": { "maxParallel": "${{ x }}" } });
        let step = |each: Value| json!({ "steps": [{ "forEach": each }], "inputs": data });
        for (given, expected) in [
            (json!({ "maxParallel": "${{ x }}" }), json!({ "maxParallelExpression": "${{ x }}" })),
            (json!({ "max_parallel": "${{ x }}" }), json!({ "maxParallelExpression": "${{ x }}" })),
            (json!({ "maxParallel": "3" }), json!({ "maxParallel": "3" })),
            (json!({ "maxParallel": 3, "items": "x" }), json!({ "maxParallel": 3, "items": "x" })),
        ] {
            let mut value = step(given);
            place_expressions(&message, &mut value);
            assert_eq!(value, step(expected));
            DynamicMessage::deserialize(message.clone(), value).unwrap();
        }
        // A number without a field for an expression stays wrong.
        let mut value = json!({ "maxParallel": "${{ x }}" });
        place_expressions(&message, &mut value);
        assert!(DynamicMessage::deserialize(message, value).is_err());
    }

    /// Workflow of `elements/tests.rs` of the control plane, which accepts its message.
    #[test]
    fn largest_workflow_has_fewer_values_than_bodies_may() {
        let text = || "x".repeat(40);
        let map = || json!({ text(): text(), "y".repeat(40): text() });
        let step = |number: usize| {
            let need = json!({ "step": format!("step-{number}") });
            let task = json!({ "prompt": text(), "environment": map(), "secrets": map() });
            json!({ "name": format!("step-{number}"), "needs": [need, need], "task": task, "outputs": map() })
        };
        let workflow = |steps| json!({ "spec": { "steps": (0..steps).map(step).collect::<Vec<_>>() } });
        let message = crate::pool().unwrap().get_message_by_name("rota.v1.Workflow").unwrap();
        DynamicMessage::deserialize(message, workflow(1)).unwrap();
        let body = workflow(10_000).to_string();
        assert!((5 << 20..8 << 20).contains(&body.len()), "{}", body.len());
        let parsed = json(body.as_bytes()).unwrap();
        assert_eq!(parsed["spec"]["steps"].as_array().unwrap().len(), 10_000);
    }
}
