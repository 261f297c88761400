//! JSON of the bounds of a step that may be expressions: `maxParallel: "${{ inputs.width }}"`. In messages the number and the
//! expression are fields of their own, so that clients which know only the number keep working; what is read may have either under
//! the name of the number.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::v1;

/// Number, or an expression in its place.
#[derive(Default)]
struct Bound {
    number: i32,
    expression: String,
}

impl Bound {
    /// Returns the number, and the expression from either place.
    fn with<E: Error>(self, expression: String) -> Result<(i32, String), E> {
        match (self.expression.is_empty(), expression.is_empty()) {
            (false, false) => Err(E::custom("a bound has two expressions")),
            (false, true) => Ok((self.number, self.expression)),
            _ => Ok((self.number, expression)),
        }
    }
}

struct BoundVisitor;

impl Visitor<'_> for BoundVisitor {
    type Value = Bound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or an expression")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Bound, E> {
        let invalid = |_| E::invalid_value(Unexpected::Signed(value), &self);
        Ok(Bound { number: value.try_into().map_err(invalid)?, ..Bound::default() })
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Bound, E> {
        let invalid = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
        Ok(Bound { number: value.try_into().map_err(invalid)?, ..Bound::default() })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bound, E> {
        // Protobuf's JSON has numbers as text, too.
        match text.parse() {
            Ok(number) => Ok(Bound { number, ..Bound::default() }),
            Err(_) if text.is_empty() => Err(E::invalid_value(Unexpected::Str(text), &self)),
            Err(_) => Ok(Bound { expression: text.to_owned(), ..Bound::default() }),
        }
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoundVisitor)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct ForEach {
    items: String,
    #[serde(alias = "max_parallel")]
    max_parallel: Bound,
    #[serde(alias = "max_parallel_expression")]
    max_parallel_expression: String,
}

impl<'de> Deserialize<'de> for v1::ForEach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ForEach { items, max_parallel, max_parallel_expression } = ForEach::deserialize(deserializer)?;
        let (max_parallel, max_parallel_expression) = max_parallel.with(max_parallel_expression)?;
        Ok(Self { items, max_parallel, max_parallel_expression })
    }
}

impl Serialize for v1::ForEach {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bound = ("maxParallel", self.max_parallel);
        fields(
            serializer,
            ("items", &self.items),
            bound,
            ("maxParallelExpression", &self.max_parallel_expression),
        )
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Repeat {
    until: String,
    max: Bound,
    #[serde(alias = "max_expression")]
    max_expression: String,
}

impl<'de> Deserialize<'de> for v1::Repeat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Repeat { until, max, max_expression } = Repeat::deserialize(deserializer)?;
        let (max, max_expression) = max.with(max_expression)?;
        Ok(Self { until, max, max_expression })
    }
}

impl Serialize for v1::Repeat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let expression = ("maxExpression", self.max_expression.as_str());
        fields(serializer, ("until", &self.until), ("max", self.max), expression)
    }
}

/// Writes the fields that are set, as the canonical mapping has them.
fn fields<S: Serializer>(
    serializer: S,
    first: (&'static str, &str),
    number: (&'static str, i32),
    expression: (&'static str, &str),
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    if !first.1.is_empty() {
        map.serialize_entry(first.0, first.1)?;
    }
    if number.1 != 0 {
        map.serialize_entry(number.0, &number.1)?;
    }
    if !expression.1.is_empty() {
        map.serialize_entry(expression.0, expression.1)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(text: &str) -> Result<v1::ForEach, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn bounds_are_numbers_or_expressions() {
        let read = |text| each(text).map(|each| (each.max_parallel, each.max_parallel_expression)).unwrap();
        assert_eq!(read(r#"{"maxParallel": 3}"#), (3, String::new()));
        assert_eq!(read(r#"{"max_parallel": "3"}"#), (3, String::new()));
        let expression = "${{ inputs.width }}".to_owned();
        assert_eq!(read(r#"{"maxParallel": "${{ inputs.width }}"}"#), (0, expression.clone()));
        assert_eq!(read(r#"{"maxParallelExpression": "${{ inputs.width }}"}"#), (0, expression.clone()));
        // Both is refused by who knows the step.
        let both = r#"{"maxParallel": 3, "maxParallelExpression": "${{ inputs.width }}"}"#;
        assert_eq!(read(both), (3, expression));
        for wrong in [
            r#"{"maxParallel": 3000000000}"#,
            r#"{"maxParallel": ""}"#,
            r#"{"maxParallel": "a", "maxParallelExpression": "b"}"#,
            r#"{"width": 1}"#,
        ] {
            assert!(each(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (text, expected) in [
            (r#"{"until":"true","max":3}"#, r#"{"until":"true","max":3}"#),
            (r#"{"until":"true","max":"inputs.most"}"#, r#"{"until":"true","maxExpression":"inputs.most"}"#),
            ("{}", "{}"),
        ] {
            let repeat: v1::Repeat = serde_json::from_str(text).unwrap();
            let written = serde_json::to_string(&repeat).unwrap();
            assert_eq!(written, expected);
            assert_eq!(serde_json::from_str::<v1::Repeat>(&written).unwrap(), repeat);
        }
        let text = r#"{"items":"[1]","maxParallelExpression":"inputs.width"}"#;
        assert_eq!(serde_json::to_string(&each(text).unwrap()).unwrap(), text);
    }
}
