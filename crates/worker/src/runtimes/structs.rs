//! Conversion between `google.protobuf.Struct` and JSON.

use rota_proto::num::whole;
use serde_json::{Value, json};

/// Converts a struct to JSON. A struct has only floating-point numbers: whole ones become integers
/// again, since schemas, ports and counts look odd otherwise.
pub(crate) fn to_json(fields: &pbjson_types::Struct) -> Value {
    serde_json::to_value(fields).map_or(Value::Null, whole)
}

/// Converts JSON to a struct. A value that is not an object becomes the field `value` of one; null has no struct.
pub(crate) fn from_json(value: Value) -> Option<pbjson_types::Struct> {
    let object = match value {
        Value::Null => return None,
        Value::Object(_) => value,
        other => json!({ "value": other }),
    };
    serde_json::from_value(object).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_survive_round_trip() {
        let value = json!({"port": 80, "share": 0.5, "list": [1, "two"], "none": null});
        assert_eq!(to_json(&from_json(value.clone()).unwrap()), value);
    }

    #[test]
    fn non_objects_are_wrapped() {
        assert!(from_json(Value::Null).is_none());
        let wrapped = from_json(json!([1, "x"])).unwrap();
        assert_eq!(to_json(&wrapped), json!({"value": [1, "x"]}));
    }
}
