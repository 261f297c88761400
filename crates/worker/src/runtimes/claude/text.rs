//! Turns structs of the API into JSON and back. Knows nothing of where they come from.

use serde_json::{Map, Value};

/// A struct of the API as JSON. It knows only floating-point numbers; whole ones become integers
/// again, since schemas, ports and counts look odd otherwise.
pub(super) fn json(fields: &pbjson_types::Struct) -> Value {
    serde_json::to_value(fields).map_or(Value::Null, whole_numbers)
}

fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            // Up to 2^53 a double holds every integer exactly.
            Some(float) if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, whole_numbers(value))).collect()
        }
        other => other,
    }
}

/// JSON as a struct of the API. What is not an object stands under `value`.
pub(super) fn to_struct(value: &Value) -> Option<pbjson_types::Struct> {
    let object = match value {
        Value::Object(_) => value.clone(),
        other => Value::Object(Map::from_iter([("value".to_owned(), other.clone())])),
    };
    serde_json::from_value(object).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_come_back_whole() {
        let value = json!({"port": 80, "share": 0.5, "list": [1, "two"], "none": null});
        assert_eq!(json(&to_struct(&value).unwrap()), value);
        assert_eq!(json(&to_struct(&json!([1])).unwrap()), json!({"value": [1]}));
    }
}
