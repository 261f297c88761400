//! Values of the API as JSON for people.

use serde_json::Value;

/// Returns a value of the API as JSON. Whole numbers have no fraction, which the type of the API adds.
pub fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().and_then(|float| float.to_string().parse::<i64>().ok());
            whole.map_or(Value::Number(number), Value::from)
        }
        Value::Array(list) => list.into_iter().map(whole).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction() {
        let of_api = json!({"count": 2.0, "list": [1.0, 0.5, 1e300], "text": "3.0"});
        let shown = whole(of_api).to_string();
        assert_eq!(shown, r#"{"count":2,"list":[1,0.5,1e+300],"text":"3.0"}"#);
    }
}
