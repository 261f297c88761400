//! JSON of requests: values are counted before they are made. One takes two bytes as text, and up to about 1 KiB as a part of a message.
//! Knows no message.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::call::LARGE;

/// Values of a text at most, at any depth: about 256 MiB, 32 times the largest text. A workflow of 10,000 steps with variables has fewer.
pub(crate) const MAX_VALUES: usize = 256 << 10;

/// Why a text is not parsed.
#[derive(Debug)]
pub(crate) enum Unparsed {
    TooMany,
    Invalid(serde_json::Error),
}

/// Parses a text. Small ones have fewer than [`MAX_VALUES`].
pub(crate) fn parse(text: &[u8]) -> Result<Value, Unparsed> {
    if text.len() >= LARGE {
        let count = Cell::new(0);
        let counted = Count(&count).deserialize(&mut serde_json::Deserializer::from_slice(text));
        if count.get() > MAX_VALUES {
            return Err(Unparsed::TooMany);
        }
        counted.map_err(Unparsed::Invalid)?;
    }
    serde_json::from_slice(text).map_err(Unparsed::Invalid)
}

/// Counts values, and makes none.
#[derive(Clone, Copy)]
struct Count<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MAX_VALUES {
            return Err(D::Error::custom("too many values"));
        }
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: usize) -> String {
        format!("[{}0]", "0,".repeat(values - 2))
    }

    #[test]
    fn values_are_counted_at_any_depth() {
        let parsed = parse(list(MAX_VALUES).as_bytes()).unwrap();
        assert_eq!(parsed.as_array().unwrap().len(), MAX_VALUES - 1);
        let many = [
            list(MAX_VALUES + 1),
            format!(r#"{{"a":{}}}"#, list(MAX_VALUES)),
            format!("[{}{{}}]", "[],".repeat(MAX_VALUES)),
            format!("{{{}}}", vec![r#""a":null"#; MAX_VALUES].join(",")),
        ];
        for text in many {
            assert!(matches!(parse(text.as_bytes()), Err(Unparsed::TooMany)), "{text:.20}");
        }
    }

    #[test]
    fn large_texts_are_values_or_errors() {
        let text = serde_json::json!({ "text": "x,".repeat(LARGE), "list": [1, -1, 0.5, true, null, {}] });
        assert_eq!(parse(text.to_string().as_bytes()).unwrap(), text);
        for wrong in ["[", "[1,]", "[1] 2", "[1e999]", "{1:2}", "[\"\u{1}\"]"] {
            let text = format!("{}{wrong}", " ".repeat(LARGE));
            assert!(matches!(parse(text.as_bytes()), Err(Unparsed::Invalid(_))), "{wrong}");
        }
    }
}
