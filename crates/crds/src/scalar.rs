//! Scalars with their own notation: money, priorities, times, free-form JSON.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Amount of US dollars, written as a decimal string such as `"0.50"`, so that it is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd {
    /// Amount in millionths of a dollar.
    pub micro: i64,
}

/// Largest valid amount, in dollars.
pub const MAX_USD: i64 = 1_000_000;

impl FromStr for Usd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not an amount of dollars such as \"0.50\": {why}");
        if text.starts_with('-') {
            return Err(wrong("negative"));
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
            return Err(wrong("expected digits and at most one point"));
        }
        if fraction.len() > 6 {
            return Err(wrong("more than six decimal places"));
        }
        let whole: i64 = whole.parse().map_err(|_| wrong("too large"))?;
        if whole > MAX_USD {
            return Err(wrong("too large"));
        }
        let fraction: i64 = format!("{fraction:0<6}").parse().map_err(|_| wrong("invalid fraction"))?;
        Ok(Self { micro: whole * 1_000_000 + fraction })
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.micro / 1_000_000, self.micro % 1_000_000);
        let short = text.trim_end_matches('0');
        // At least two decimal places, as usual for money.
        let places = short.len() - short.find('.').unwrap_or(0) - 1;
        write!(f, "{short}{}", "0".repeat(2_usize.saturating_sub(places)))
    }
}

/// Priority of a task: 0 to 10, or LOW, NORMAL, HIGH, URGENT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(pub i32);

impl Priority {
    const NAMES: [(&'static str, i32); 4] = [("LOW", 2), ("NORMAL", 5), ("HIGH", 8), ("URGENT", 10)];

    fn number(value: i64) -> Result<Self, String> {
        i32::try_from(value)
            .ok()
            .filter(|value| (0..=10).contains(value))
            .map(Self)
            .ok_or_else(|| format!("{value} is not a priority: 0 to 10, or LOW, NORMAL, HIGH, URGENT"))
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, value)) = Self::NAMES.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            return Ok(Self(*value));
        }
        let value: i64 = text
            .parse()
            .map_err(|_| format!("{text:?} is not a priority: 0 to 10, or LOW, NORMAL, HIGH, URGENT"))?;
        Self::number(value)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, value)| *value == self.0) {
            Some((word, _)) => f.write_str(word),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Priority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.0)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Priority;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a priority: 0 to 10, or LOW, NORMAL, HIGH, URGENT")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Priority, E> {
                Priority::number(value).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Priority, E> {
                Priority::number(i64::try_from(value).unwrap_or(i64::MAX)).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Priority, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Priority {
    fn schema_name() -> Cow<'static, str> {
        "Priority".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Structural schemas allow no `type` next to `x-kubernetes-int-or-string`.
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// Point in time, in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub jiff::Timestamp);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error| format!("{text:?} is not a time such as 2030-01-31T08:00:00Z: {error}"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! as_string {
    ($name:ident, $expecting:literal, $format:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                // A plain `5` or `0.5` is rejected although YAML could provide it as text: a cluster would
                // reject it, and manifests behave the same in both places.
                deserializer.deserialize_any(Visitor)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $format
            }
        }
    };
}

as_string!(
    Usd,
    "an amount of dollars in quotes, such as \"0.50\"",
    json_schema!({ "type": "string", "maxLength": 14, "pattern": "^[0-9]{1,7}(\\.[0-9]{1,6})?$" })
);
as_string!(
    Time,
    "a time such as 2030-01-31T08:00:00Z",
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
);

/// JSON object with free-form fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Map<String, serde_json::Value>);

impl JsonSchema for Json {
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_bounded() {
        for (text, micro, back) in
            [("0.50", 500_000, "0.50"), ("2", 2_000_000, "2.00"), ("0.000001", 1, "0.000001")]
        {
            let usd: Usd = text.parse().unwrap();
            assert_eq!((usd.micro, usd.to_string().as_str()), (micro, back));
        }
        for bad in ["", "-1", "1.", ".5", "1.2.3", "0.0000001", "1e3", "99999999", "$1"] {
            assert!(bad.parse::<Usd>().is_err(), "{bad}");
        }
    }

    #[test]
    fn priorities_are_numbers_or_names() {
        for (json, value) in [("7", 7), ("0", 0), ("\"HIGH\"", 8), ("\"urgent\"", 10), ("\"3\"", 3)] {
            assert_eq!(serde_json::from_str::<Priority>(json).unwrap(), Priority(value));
        }
        for bad in ["11", "-1", "\"VERY\"", "5.5", "true", "18446744073709551615"] {
            assert!(serde_json::from_str::<Priority>(bad).is_err(), "{bad}");
        }
        assert_eq!(Priority(8).to_string(), "HIGH");
        assert_eq!(Priority(7).to_string(), "7");
    }

    #[test]
    fn times_require_an_offset() {
        assert_eq!("2030-01-31T10:00:00+02:00".parse::<Time>().unwrap().to_string(), "2030-01-31T08:00:00Z");
        assert!("2030-01-31".parse::<Time>().is_err());
    }
}
