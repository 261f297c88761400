//! Texts with expressions in `${{ }}`.

use serde_json::Value;

use crate::expression::on_stack;
use crate::{Error, Expression, MAX_DEPTH, MAX_EXPRESSIONS, MAX_OUTPUT, References, Values, json};

const BEGIN: &str = "${{";

/// A text with expressions, parsed and checked.
#[derive(Debug, Clone)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Expression(Expression),
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text.contains(BEGIN) {
            true => on_stack(|| Self::parse_parts(text)),
            false => Self::parse_parts(text),
        }
    }

    fn parse_parts(text: &str) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(BEGIN) {
            let end = end(after).ok_or_else(|| Error::Open(after.chars().take(40).collect()))?;
            let (expression, following) = after.split_at_checked(end).unwrap_or((after, ""));
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            // Texts stand between them.
            if parts.len() >= 2 * MAX_EXPRESSIONS {
                return Err(Error::TooMany);
            }
            parts.push(Part::Expression(Expression::parse(expression)?));
            rest = following.strip_prefix("}}").unwrap_or(following);
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Whether the text has no expression.
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    pub fn references(&self) -> References {
        let mut references = References::default();
        for part in &self.parts {
            if let Part::Expression(expression) = part {
                references.merge(expression.references());
            }
        }
        references
    }

    /// Returns the text with the results of its expressions; if it is one expression, the result with its type.
    pub fn evaluate(&self, values: &Values) -> Result<Value, Error> {
        if let [Part::Expression(expression)] = self.parts.as_slice() {
            return expression.evaluate(values);
        }
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Expression(expression) => {
                    text.push_str(&json::text(&expression.evaluate(values)?));
                    if text.len() > MAX_OUTPUT {
                        return Err(Error::TooLarge { expression: expression.text().to_owned() });
                    }
                }
            }
        }
        Ok(Value::String(text))
    }
}

impl Template {
    /// Returns the text with the results of its expressions.
    pub fn evaluate_text(&self, values: &Values) -> Result<String, Error> {
        self.evaluate(values).map(|value| json::text(&value))
    }
}

/// Returns the place of the `}}` that ends an expression: the first one outside of texts and of maps.
fn end(text: &str) -> Option<usize> {
    let (mut quote, mut escaped, mut open) = (None, false, 0_usize);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{') => open += 1,
            (None, '}') if open > 0 => open -= 1,
            (None, '}') if text.get(at..).is_some_and(|rest| rest.starts_with("}}")) => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// Evaluates all texts of a JSON value as templates. Keys are not.
pub fn fill(value: &Value, values: &Values) -> Result<Value, Error> {
    fill_with(value, values, false)
}

/// As [`fill`], and texts stay texts, whatever the results of their expressions are.
pub fn fill_text(value: &Value, values: &Values) -> Result<Value, Error> {
    fill_with(value, values, true)
}

fn fill_with(value: &Value, values: &Values, as_text: bool) -> Result<Value, Error> {
    if !may_have_some(value, 0) {
        return Ok(value.clone());
    }
    let mut room = MAX_OUTPUT;
    let mut change = |text: &str| {
        let template = Template::parse(text)?;
        if template.is_plain() {
            return Ok(Value::String(text.to_owned()));
        }
        let filled = match as_text {
            true => Value::String(template.evaluate_text(values)?),
            false => template.evaluate(values)?,
        };
        // Many small texts of which each has a large result.
        room = room
            .checked_sub(filled.to_string().len())
            .ok_or_else(|| Error::TooLarge { expression: text.chars().take(80).collect() })?;
        Ok(filled)
    };
    on_stack(|| walk(value, 0, &mut change))
}

/// Returns what all texts of a JSON value use; they are checked.
pub fn references(value: &Value) -> Result<References, Error> {
    let mut references = References::default();
    if !may_have_some(value, 0) {
        return Ok(references);
    }
    let mut add = |text: &str| {
        references.merge(&Template::parse(text)?.references());
        if references.count > MAX_EXPRESSIONS { Err(Error::TooMany) } else { Ok(Value::Null) }
    };
    on_stack(|| walk(value, 0, &mut add))?;
    Ok(references)
}

/// Whether a JSON value may have an expression, or is too deep to have any.
fn may_have_some(value: &Value, depth: usize) -> bool {
    depth > MAX_DEPTH
        || match value {
            Value::String(text) => text.contains(BEGIN),
            Value::Array(list) => list.iter().any(|value| may_have_some(value, depth + 1)),
            Value::Object(object) => object.values().any(|value| may_have_some(value, depth + 1)),
            _ => false,
        }
}

fn walk(
    value: &Value,
    depth: usize,
    change: &mut impl FnMut(&str) -> Result<Value, Error>,
) -> Result<Value, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    Ok(match value {
        Value::String(text) => change(text)?,
        Value::Array(list) => {
            Value::Array(list.iter().map(|value| walk(value, depth + 1, change)).collect::<Result<_, _>>()?)
        }
        Value::Object(object) => {
            let entry = |(key, value): (&String, &Value)| Ok((key.clone(), walk(value, depth + 1, change)?));
            Value::Object(object.iter().map(entry).collect::<Result<_, Error>>()?)
        }
        other => other.clone(),
    })
}
