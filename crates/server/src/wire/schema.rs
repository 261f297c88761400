//! JSON Schemas of callers, for values that are small. A validator visits what a schema refers to as often as it is referred
//! to: references within references would keep it busy for years, and long chains of them exhaust its stack.

use std::collections::HashMap;

use jsonschema::Validator;
use serde_json::Value;
use tonic::Status;

use super::check;
use super::status::invalid;

/// Most references of a schema, counted as often as they are visited.
const MAX_REFERENCES: usize = 2000;
/// Deepest nesting of a schema, with what it refers to in its place.
const MAX_DEPTH: usize = 200;
/// Longest description of a value that does not fit.
const MAX_CAUSE: usize = 300;

/// References of a schema in place of which others stand, and the nesting that results.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    references: usize,
    depth: usize,
}

/// Returns the validator of a schema of at most `most` bytes.
pub(super) fn validator(field: &str, schema: &Value, most: usize) -> Result<Validator, Status> {
    let text = schema.to_string();
    check::length(field, &text, most)?;
    let id = if text.contains("draft-04") { "id" } else { "$id" };
    let mut sizes = Sizes { root: schema, id, known: HashMap::new() };
    sizes.of(schema, 0).map_err(|why| invalid(field, why))?;
    jsonschema::validator_for(schema).map_err(|error| {
        invalid(field, format!("is not a JSON Schema: {}", check::shorten(&error.to_string())))
    })
}

/// Checks a value, up to the first part that does not fit.
pub(super) fn check(validator: &Validator, value: &Value) -> Result<(), (String, String)> {
    validator.validate(value).map_err(|error| {
        (error.instance_path().to_string(), error.to_string().chars().take(MAX_CAUSE).collect())
    })
}

struct Sizes<'a> {
    root: &'a Value,
    /// Keyword for the address of a schema.
    id: &'static str,
    /// Those of the places that were visited, so that each is visited once.
    known: HashMap<&'a str, Size>,
}

impl<'a> Sizes<'a> {
    fn of(&mut self, part: &'a Value, depth: usize) -> Result<Size, String> {
        if depth > MAX_DEPTH {
            return Err(format!("refers to itself, or is nested in more than {MAX_DEPTH} levels"));
        }
        let mut size = Size::default();
        let mut add = |part: Size| {
            size.references = size.references.saturating_add(part.references);
            size.depth = size.depth.max(part.depth + 1);
        };
        match part {
            Value::Array(list) => {
                for element in list {
                    add(self.of(element, depth + 1)?);
                }
            }
            Value::Object(object) => {
                for (key, value) in object {
                    add(match (key.as_str(), value) {
                        ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(place)) => {
                            let target = self.target(place, depth + 1)?;
                            Size { references: target.references.saturating_add(1), ..target }
                        }
                        // They change what the references within mean.
                        (key, Value::String(_)) if key == self.id && depth > 0 => {
                            return Err(format!("has {key:?} below its root, which is not supported"));
                        }
                        _ => self.of(value, depth + 1)?,
                    });
                }
            }
            _ => {}
        }
        if size.references > MAX_REFERENCES {
            return Err(format!("has more than {MAX_REFERENCES} references, with those that they refer to"));
        }
        Ok(size)
    }

    fn target(&mut self, place: &'a str, depth: usize) -> Result<Size, String> {
        let known = self.known.get(place).copied();
        let size = match known {
            Some(size) => size,
            None => {
                let pointer = place.strip_prefix('#').filter(|pointer| !pointer.contains('%'));
                let part = pointer.and_then(|pointer| self.root.pointer(pointer)).ok_or_else(|| {
                    let place = check::shorten(place);
                    format!("refers to {place:?}: only parts of the schema itself, as in \"#/$defs/name\", are supported")
                })?;
                let size = self.of(part, depth)?;
                self.known.insert(place, size);
                size
            }
        };
        if depth + size.depth > MAX_DEPTH {
            return Err(format!("refers to itself, or is nested in more than {MAX_DEPTH} levels"));
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> String {
        validator("schema", schema, 64 << 10).map(drop).unwrap_err().message().to_owned()
    }

    /// Returns a schema in which each part refers to the next one some times.
    fn chain(length: usize, times: usize) -> Value {
        let part =
            |index: usize| json!({ "allOf": vec![json!({ "$ref": format!("#/$defs/a{index}") }); times] });
        let mut parts: serde_json::Map<_, _> =
            (0..length).map(|at| (format!("a{at}"), part(at + 1))).collect();
        parts.insert(format!("a{length}"), json!({ "type": "object" }));
        json!({ "$ref": "#/$defs/a0", "$defs": parts })
    }

    #[test]
    fn schemas_with_many_references_are_refused() {
        for (schema, why) in [
            (chain(30, 2), "more than 2000 references"),
            (chain(500, 1), "nested in more than"),
            (json!({ "properties": { "a": { "$ref": "#" } } }), "refers to itself"),
            (json!({ "$ref": "https://example.com/schema" }), "only parts of the schema itself"),
            (json!({ "$ref": "#/%24defs/a", "$defs": { "a": true } }), "only parts of the schema itself"),
            (json!({ "properties": { "a": { "$id": "b", "$ref": "#" } } }), "below its root"),
            (json!({ "type": 1 }), "is not a JSON Schema"),
        ] {
            assert!(refused(&schema).contains(why), "{schema}: {}", refused(&schema));
        }
    }

    #[test]
    fn ordinary_schemas_are_used() {
        let schema = json!({
            "$id": "https://example.com/root",
            "properties": {
                "id": { "const": { "id": "x" } }, "a": { "$ref": "#/$defs/a" }, "b": { "items": { "$ref": "#/$defs/a" } },
            },
            "$defs": { "a": { "type": "integer" } },
        });
        // The deepest one does not exhaust the stack.
        for schema in [schema, chain(8, 2), chain(60, 1)] {
            let validator = validator("schema", &schema, 64 << 10).unwrap();
            check(&validator, &json!({ "id": { "id": "x" }, "a": 1, "b": [2, 3] })).unwrap();
        }
        let validator = validator("schema", &json!({ "items": { "type": "integer" } }), 100).unwrap();
        let (place, why) = check(&validator, &json!([1, "x"])).unwrap_err();
        assert_eq!((place.as_str(), why.contains("integer")), ("/1", true));
    }
}
