//! Conversion between JSON and the evaluator's values. Whole numbers stay whole.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use serde_json::Value;

/// Why a value cannot be a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoJson {
    TooLarge,
    Type(&'static str),
}

pub(crate) fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => cel::Value::Int(number),
            (None, Some(number)) => cel::Value::UInt(number),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(list) => cel::Value::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Object(object) => {
            let entry = |(key, value): (&String, &Value)| (Key::String(Arc::new(key.clone())), to_cel(value));
            cel::Value::Map(Map { map: Arc::new(object.iter().map(entry).collect::<HashMap<_, _>>()) })
        }
    }
}

/// Converts a result within a number of bytes.
pub(crate) fn from_cel(value: &cel::Value, room: &mut usize) -> Result<Value, NoJson> {
    let mut take = |bytes: usize| {
        *room = room.checked_sub(bytes).ok_or(NoJson::TooLarge)?;
        Ok(())
    };
    match value {
        cel::Value::Null => take(4).map(|()| Value::Null),
        cel::Value::Bool(value) => take(5).map(|()| Value::Bool(*value)),
        cel::Value::Int(number) => take(8).map(|()| Value::from(*number)),
        cel::Value::UInt(number) => take(8).map(|()| Value::from(*number)),
        cel::Value::Float(number) => {
            take(8)?;
            let number = serde_json::Number::from_f64(*number).ok_or(NoJson::Type("an infinite number"))?;
            Ok(Value::Number(number))
        }
        cel::Value::String(text) => take(text.len() + 3).map(|()| Value::String(text.as_str().to_owned())),
        cel::Value::List(list) => {
            take(2)?;
            list.iter().map(|element| from_cel(element, room)).collect::<Result<_, _>>().map(Value::Array)
        }
        cel::Value::Map(map) => {
            take(2)?;
            let mut object = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let key = match key {
                    Key::String(key) => key.as_str().to_owned(),
                    Key::Int(key) => key.to_string(),
                    Key::Uint(key) => key.to_string(),
                    Key::Bool(key) => key.to_string(),
                };
                *room = room.checked_sub(key.len() + 3).ok_or(NoJson::TooLarge)?;
                object.insert(key, from_cel(value, room)?);
            }
            Ok(Value::Object(object))
        }
        _ => Err(NoJson::Type("such a value")),
    }
}

/// Returns a value as it stands in a text: texts as they are, nothing for null, others as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Returns the word for the type of a value.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
