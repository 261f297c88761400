//! Functions that expressions have: those of CEL's standard that texts, numbers and lists need, and two of our own.

use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, ExecutionError, Value, functions};

use crate::patterns::Patterns;
use crate::rounds::{ROUND, Rounds};
use crate::{MAX_OUTPUT, json};

/// Names of all functions. Macros (`has`, `all`, `exists`, `exists_one`, `map`, `filter`) are part of the language.
pub const FUNCTIONS: &[&str] = &[
    "contains",
    "double",
    "endsWith",
    "int",
    "join",
    "json",
    "matches",
    "max",
    "min",
    "size",
    "startsWith",
    "string",
    "uint",
];

pub(crate) fn context(rounds: Rounds, patterns: Patterns) -> Context<'static> {
    let mut context = Context::empty();
    context.add_function("contains", functions::contains);
    context.add_function("double", functions::double);
    context.add_function("endsWith", functions::ends_with);
    context.add_function("int", functions::int);
    context.add_function("matches", move |This(text): This<Arc<String>>, pattern: Arc<String>| {
        patterns.matches(&pattern, &text).map(Value::Bool)
    });
    context.add_function("max", functions::max);
    context.add_function("min", functions::min);
    context.add_function("size", functions::size);
    context.add_function("startsWith", functions::starts_with);
    context.add_function("string", functions::string);
    context.add_function("uint", functions::uint);
    context.add_function("join", join);
    context.add_function("json", encode);
    context.add_function(ROUND, move || rounds.begin());
    context
}

/// `list.join(separator)`: the texts of a list; other elements in their JSON form.
fn join(This(list): This<Arc<Vec<Value>>>, separator: Arc<String>) -> Result<Value, ExecutionError> {
    let mut joined = String::new();
    for (place, element) in list.iter().enumerate() {
        if place > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&text(element, "join")?);
    }
    Ok(Value::String(Arc::new(joined)))
}

/// `json(value)`: the JSON form as text.
fn encode(value: Value) -> Result<Value, ExecutionError> {
    let mut room = MAX_OUTPUT;
    let value = json::from_cel(&value, &mut room);
    value
        .map(|value| Value::String(Arc::new(value.to_string())))
        .map_err(|_| ExecutionError::function_error("json", "no JSON form"))
}

fn text(value: &Value, function: &str) -> Result<String, ExecutionError> {
    let mut room = MAX_OUTPUT;
    let value = json::from_cel(value, &mut room);
    value
        .map(|value| json::text(&value))
        .map_err(|_| ExecutionError::function_error(function, "no JSON form"))
}
