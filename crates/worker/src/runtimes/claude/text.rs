//! Cuts texts and JSON values to the bounds that the events' documentation names. Knows nothing of
//! where they come from.

use serde_json::{Map, Value};

/// Most bytes of an agent's message.
pub(super) const MESSAGE: usize = 64 * 1024;
/// Most bytes of a tool's arguments or answer.
pub(super) const TOOL: usize = 16 * 1024;
/// Most bytes of a result's text.
pub(super) const RESULT: usize = 256 * 1024;
/// Most bytes of a failure's or notice's message.
pub(super) const SENTENCE: usize = 4 * 1024;

/// Strings inside a value that is too long are cut to this first.
const INNER: usize = 1024;

/// Cuts `text` to at most `max` bytes on a character's border; says at its end how much is missing.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub(40);
    let head = &text[..text.floor_char_boundary(room)];
    format!("{head}… [{} bytes cut]", text.len() - head.len())
}

/// `value` as JSON text of at most `max` bytes. What is too long stays valid JSON: long strings
/// are cut, and if that is not enough, its beginning stands as one string under `cut`.
pub(super) fn cut_json(value: &Value, max: usize) -> String {
    let whole = value.to_string();
    if whole.len() <= max {
        return whole;
    }
    let shorter = shorten(value).to_string();
    if shorter.len() <= max {
        return shorter;
    }
    // Escaping makes a text at most six times as long.
    Value::Object(Map::from_iter([("cut".to_owned(), Value::String(cut(&whole, max / 8)))])).to_string()
}

fn shorten(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(text, INNER)),
        Value::Array(items) => items.iter().map(shorten).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shorten(value))).collect(),
        other => other.clone(),
    }
}

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
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short", 100), "short");
        for max in 50..60 {
            let text = cut(&"ä".repeat(100), max);
            assert!(text.len() <= max, "{} > {max}", text.len());
            assert!(text.ends_with("bytes cut]"), "{text}");
        }
    }

    #[test]
    fn long_json_stays_json() {
        for value in [
            json!({"content": "x\n\"".repeat(20_000)}),
            json!({"list": (0..20_000).map(|n| format!("\u{1}{n}")).collect::<Vec<_>>()}),
        ] {
            let text = cut_json(&value, TOOL);
            assert!(text.len() <= TOOL, "{}", text.len());
            serde_json::from_str::<Value>(&text).unwrap();
        }
        assert_eq!(cut_json(&json!({"a": 1}), TOOL), r#"{"a":1}"#);
    }

    #[test]
    fn numbers_come_back_whole() {
        let value = json!({"port": 80, "share": 0.5, "list": [1, "two"], "none": null});
        assert_eq!(json(&to_struct(&value).unwrap()), value);
        assert_eq!(json(&to_struct(&json!([1])).unwrap()), json!({"value": [1]}));
    }
}
