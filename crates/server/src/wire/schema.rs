//! JSON Schemas of callers. A validator visits what a schema refers to as often as it is referred
//! to: references within references would keep it busy for years, and long chains of them exhaust its stack. Patterns match in
//! linear time, and are compiled once for each reference.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use rota_proto::limits::COMPILED_PATTERN_BYTES;
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tonic::Status;

use super::check;
use super::status::invalid;

/// Most references of a schema, counted as often as they are visited.
const MAX_REFERENCES: usize = 2000;
/// Deepest nesting of a schema, with what it refers to in its place.
const MAX_DEPTH: usize = 200;
/// Most patterns of a schema, counted as often as they are compiled, and bytes of one.
const MAX_PATTERNS: usize = 100;
const MAX_PATTERN: usize = 1 << 10;
/// Bytes of the texts of a value, times the patterns of its schema.
const MAX_MATCHED: usize = 64 << 20;
/// Most comparisons of a value with a schema: the parts of both, multiplied.
const MAX_WORK: usize = 1 << 28;
/// Comparisons up to which a value is checked on the thread of its caller. Beyond, the errors of each choice, which would all be in memory
/// together, are not listed.
const MAX_SMALL_WORK: usize = 1 << 18;
/// Longest description of a value that does not fit.
const MAX_CAUSE: usize = 300;

/// Places for what may take long: half of the processors, so that schemas of some callers leave the others to all.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, |all| all.get().div_ceil(2))));

/// Validator of values, and the numbers of patterns that it matches and of parts that it compares values with.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: Validator,
    patterns: usize,
    parts: usize,
    /// Whether a value may fit one of several schemas, of which each reports its errors.
    has_choices: bool,
}

impl Schema {
    /// Returns about how many bytes it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        const PART: usize = 256;
        self.parts.saturating_mul(PART).saturating_add(self.patterns * 2 * COMPILED_PATTERN_BYTES)
    }
}

/// References, patterns and parts of a schema in place of which others stand, and the nesting that results.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    references: usize,
    patterns: usize,
    parts: usize,
    depth: usize,
}

/// Returns a schema of at most `most` bytes.
pub(crate) fn parse(field: &str, schema: &Value, most: usize) -> Result<Schema, Status> {
    let text = schema.to_string();
    check::length(field, &text, most)?;
    let id = if text.contains("draft-04") { "id" } else { "$id" };
    let mut sizes = Sizes { root: schema, id, known: HashMap::new() };
    let Size { patterns, parts, .. } = sizes.of(schema, 0).map_err(|why| invalid(field, why))?;
    let options =
        PatternOptions::regex().size_limit(COMPILED_PATTERN_BYTES).dfa_size_limit(COMPILED_PATTERN_BYTES);
    let build = || jsonschema::options().with_pattern_options(options).build(schema);
    match if patterns > 0 { blocking(&PLACES, build) } else { build() } {
        Ok(validator) => {
            let has_choices = ["\"anyOf\"", "\"oneOf\""].iter().any(|word| text.contains(word));
            Ok(Schema { validator, patterns, parts, has_choices })
        }
        Err(error) => Err(invalid(field, format!("is not a JSON Schema: {}", unusable(&error)))),
    }
}

fn unusable(error: &ValidationError<'_>) -> String {
    let text = check::shorten(&error.to_string());
    match error.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => {
            format!(
                "{text}, or it has look-around or a backreference, or is too large when compiled: write it without"
            )
        }
        _ => text,
    }
}

/// Checks a value, up to the first part that does not fit.
pub(crate) fn check(schema: &Schema, value: &Value) -> Result<(), (String, String)> {
    check_besides(schema, value, |_| false)
}

/// Checks a value as [`check()`] does, besides those texts of it, and what depends on those names of its fields, that need not fit. In a
/// large value, what follows the first of them is not checked.
pub(crate) fn check_besides(
    schema: &Schema,
    value: &Value,
    need_not: impl Fn(&str) -> bool,
) -> Result<(), (String, String)> {
    let whole = |why: String| Err((String::new(), why));
    if schema.patterns > 0 && texts(value).saturating_mul(schema.patterns) > MAX_MATCHED {
        return whole(format!("has too much text for the {} patterns of its schema", schema.patterns));
    }
    let work = parts(value).saturating_mul(schema.parts);
    if work > MAX_WORK {
        return whole(format!("has too many values for the {} parts of its schema", schema.parts));
    }
    let is_large = work > MAX_SMALL_WORK;
    let place = |error: &ValidationError<'_>| error.instance_path().to_string();
    let counts = |error: &ValidationError<'_>| {
        let excused = |part: &Value| match error.kind().keyword() {
            // These judge all within a part.
            "anyOf" | "oneOf" | "not" | "const" | "enum" | "contains" | "uniqueItems" => has(part, &need_not),
            // These judge the names of an object.
            "required"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "propertyNames"
            | "minProperties" => {
                part.as_object().is_some_and(|object| object.keys().any(|name| need_not(name)))
            }
            _ => part.as_str().is_some_and(&need_not),
        };
        let place = place(error);
        // The name of a field decides which schema its value has to fit.
        !place.split('/').any(&need_not) && !value.pointer(&place).is_some_and(excused)
    };
    let validate = || {
        if schema.has_choices && is_large {
            return match schema.validator.is_valid(value) {
                true => Ok(()),
                false if has(value, &need_not) => Ok(()),
                false => whole("does not fit, and has too many values to list where".to_owned()),
            };
        }
        let wrong = match schema.validator.validate(value) {
            Ok(()) => None,
            Err(first) if counts(&first) => Some(first),
            Err(_) if is_large => None,
            Err(_) => schema.validator.iter_errors(value).find(|error| counts(error)),
        };
        wrong
            .map_or(Ok(()), |error| Err((place(&error), error.to_string().chars().take(MAX_CAUSE).collect())))
    };
    if schema.patterns > 0 || is_large { blocking(&PLACES, validate) } else { validate() }
}

/// Does what may take long, once there is a place, while other threads run the tasks of this one.
fn blocking<T>(places: &Semaphore, work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| {
                // They are never closed.
                let _place = runtime.block_on(places.acquire());
                work()
            })
        }
        _ => work(),
    }
}

/// Whether a text or a name in a value is such a one.
fn has(value: &Value, is: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is(text),
        Value::Array(list) => list.iter().any(|part| has(part, is)),
        Value::Object(object) => object.iter().any(|(name, part)| is(name) || has(part, is)),
        _ => false,
    }
}

/// Returns the bytes of all texts and names in a value.
fn texts(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(texts).sum(),
        Value::Object(object) => object.iter().map(|(name, value)| name.len() + texts(value)).sum(),
        _ => 0,
    }
}

/// Returns the number of values in a value, and the value itself.
fn parts(value: &Value) -> usize {
    let within: usize = match value {
        Value::Array(list) => list.iter().map(parts).sum(),
        Value::Object(object) => object.values().map(parts).sum(),
        _ => 0,
    };
    within + 1
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
        let mut size = Size { parts: 1, ..Size::default() };
        let mut add = |part: Size| {
            size.references = size.references.saturating_add(part.references);
            size.patterns = size.patterns.saturating_add(part.patterns);
            size.parts = size.parts.saturating_add(part.parts);
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
                        ("pattern", Value::String(pattern)) => one_pattern(pattern)?,
                        ("patternProperties", Value::Object(parts)) => {
                            let mut size = self.of(value, depth + 1)?;
                            for pattern in parts.keys() {
                                size.patterns = size.patterns.saturating_add(one_pattern(pattern)?.patterns);
                            }
                            size
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
        if size.patterns > MAX_PATTERNS {
            return Err(format!("has more than {MAX_PATTERNS} patterns, with those that it refers to"));
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

fn one_pattern(pattern: &str) -> Result<Size, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("has a pattern of more than {MAX_PATTERN} bytes"));
    }
    Ok(Size { patterns: 1, ..Size::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> String {
        parse("schema", schema, 64 << 10).map(drop).unwrap_err().message().to_owned()
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
            let schema = parse("schema", &schema, 64 << 10).unwrap();
            check(&schema, &json!({ "id": { "id": "x" }, "a": 1, "b": [2, 3] })).unwrap();
        }
        let schema = parse("schema", &json!({ "items": { "type": "integer" } }), 100).unwrap();
        let (place, why) = check(&schema, &json!([1, "x"])).unwrap_err();
        assert_eq!((place.as_str(), why.contains("integer")), ("/1", true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_takes_a_place() {
        let places = Semaphore::new(1);
        assert_eq!(blocking(&places, || places.available_permits()), 0);
        assert_eq!(places.available_permits(), 1);
    }

    #[test]
    fn work_of_large_values_is_bounded() {
        let schema = json!({ "items": { "anyOf": vec![json!({ "type": "string" }); 1000] } });
        let schema = parse("schema", &schema, 64 << 10).unwrap();
        assert_eq!(check(&schema, &json!(["x", 1])).unwrap_err().0, "/1");
        check(&schema, &json!(vec!["x"; 1000])).unwrap();
        // Each element would report 1000 errors.
        let (_, why) = check(&schema, &json!(vec![1; 1000])).unwrap_err();
        assert_eq!(why, "does not fit, and has too many values to list where");
        let (_, why) = check(&schema, &json!(vec![1; 200_000])).unwrap_err();
        assert!(why.starts_with("has too many values for the "), "{why}");
    }

    #[test]
    fn patterns_are_bounded_and_linear() {
        let patterns = |count: usize| -> Value {
            (0..count).map(|at| json!({ "pattern": format!("^a+{at}$") })).collect()
        };
        let named: serde_json::Map<_, _> = (0..101).map(|at| (format!("^b{at}[0-9]$"), json!({}))).collect();
        let part = json!({ "allOf": patterns(60) });
        for (schema, why) in [
            (json!({ "allOf": patterns(101) }), "more than 100 patterns"),
            (json!({ "patternProperties": named }), "more than 100 patterns"),
            // Each reference compiles them.
            (
                json!({ "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }], "$defs": { "a": part } }),
                "more than 100 patterns",
            ),
            (json!({ "pattern": "a".repeat(1025) }), "more than 1024 bytes"),
            (json!({ "pattern": "^([a-z]{1,900}){900}$" }), "too large when compiled"),
            (json!({ "pattern": "^(?=a)b" }), "look-around"),
            (json!({ "pattern": r"^(a+)\1$" }), "backreference"),
            (json!({ "patternProperties": { "^(?!a)": true } }), "look-around"),
        ] {
            assert!(refused(&schema).contains(why), "{schema}: {}", refused(&schema));
        }
        // An engine that backtracks gives up.
        let schema = parse("schema", &json!({ "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$" }), 100).unwrap();
        assert!(check(&schema, &json!("a".repeat(100_000))).is_err());
        check(&schema, &json!(format!("{}!Aa", "a".repeat(100_000)))).unwrap();
        let schema = parse("schema", &json!({ "items": { "allOf": patterns(100) } }), 64 << 10).unwrap();
        let (_, why) =
            check(&schema, &json!(["a".repeat(500 << 10), { "b": "a".repeat(500 << 10) }])).unwrap_err();
        assert_eq!(why, "has too much text for the 100 patterns of its schema");
    }
}
