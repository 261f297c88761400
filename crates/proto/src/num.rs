//! Conversions of counts to the signed integers of the API, where a count beyond the range becomes the largest value, and of the numbers
//! of `google.protobuf.Struct` back to whole ones.

use serde_json::Value;

/// Numbers below it, which is less than 2^53, are exact in floating point. Expressions of workflows depend on it.
const WHOLE_BELOW: f64 = 9e15;

/// Converts a count to an `int32`.
pub fn to_i32(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

/// Converts a count to an `int64`.
pub fn to_i64(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// Makes numbers without a fraction whole again: `Struct` has only those of floating point, which do not add to whole ones.
pub fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < WHOLE_BELOW);
            float.map_or(Value::Number(number), |float| Value::from(float as i64))
        }
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn exact_numbers_without_fraction_become_whole() {
        let of_api = json!({"list": [2.0, -3.0, 0.5, 8_999_999_999_999_999.0, 9e15], "text": "3.0"});
        let expected = json!({"list": [2, -3, 0.5, 8_999_999_999_999_999_i64, 9e15], "text": "3.0"});
        assert_eq!(whole(of_api), expected);
    }
}
