//! Expressions of workflows: `${{ steps.review.result.approved && inputs.deploy }}`, in CEL
//! (<https://github.com/google/cel-spec>). Pure: no IO, no clock; the same values give the same result. Knows nothing of
//! workflows besides the names of the values that they offer.
//!
//! # Main types
//!
//! - [`Expression`]: one CEL expression, parsed and checked.
//! - [`Template`]: a text with expressions in `${{ }}`. A text that is one expression keeps its JSON type; others become text.
//! - [`fill`]: all texts of a JSON value, as templates.
//! - [`on_stack`]: what parses or evaluates many expressions begins with it.
//! - [`Values`]: what expressions see. [`References`]: what an expression uses of it, so that only that is loaded.
//!
//! # Bounds
//!
//! Authors of workflows are not trusted. An expression is at most [`MAX_LENGTH`] bytes long, and neither deep nor of many parts. Before each
//! evaluation `cost.rs` computes an upper bound of its work from the expression and the sizes of the values: more than [`MAX_COST`]
//! is an error, as is a result above [`MAX_OUTPUT`] bytes. `rounds.rs` ends an evaluation that has more rounds than the bound. [`Values::budget`] bounds the work of many evaluations together. There are no other loops than those of CEL's macros, which end.
//!
//! # How to add a function
//!
//! In `functions.rs`, with the bound of its cost in `cost.rs` if it is not linear, and in `docs/expressions.md`.

mod cost;
mod expression;
mod functions;
mod json;
mod patterns;
mod rounds;
mod size;
mod template;
#[cfg(test)]
mod tests;
mod values;

pub use self::cost::MAX_COST;
pub use self::expression::{Expression, References, on_stack};
pub use self::functions::FUNCTIONS;
pub use self::template::{Template, fill, fill_text, references};
pub use self::values::Values;

/// Version of the rules by which expressions are evaluated, which each workflow keeps from its creation on. A change after which
/// an expression may have another result raises it, and evaluates those of earlier workflows by the earlier rules.
pub const RULES: u32 = 1;
/// Longest text of an expression, without `${{` and `}}`, in bytes.
pub const MAX_LENGTH: usize = 4 << 10;
/// Most expressions of a text, or of a JSON value; those with large patterns count as several.
pub const MAX_EXPRESSIONS: usize = 256;
/// Deepest nesting of the JSON value of templates.
pub const MAX_DEPTH: usize = 32;
/// Largest result of an expression, or of a template, in bytes of JSON.
pub const MAX_OUTPUT: usize = 1 << 20;
/// Longest part of a cause that an error repeats.
const MAX_CAUSE: usize = 300;

/// Error of an expression, with its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("expression {expression:?} is invalid: {cause}")]
    Syntax { expression: String, cause: String },
    #[error("expression has {0} bytes; at most {MAX_LENGTH} are allowed")]
    TooLong(usize),
    #[error("value or expression is nested too deeply, or has too many parts")]
    TooDeep,
    #[error("expression {expression:?}: {name:?} is unknown{}", did_you_mean(.similar.as_deref()))]
    Unknown { expression: String, name: String, similar: Option<String> },
    #[error(
        "expression {expression:?} would need more work than is allowed: shorten its lists or nest fewer loops"
    )]
    TooCostly { expression: String },
    #[error("expression {expression:?} needed more work than was expected of it: shorten its lists")]
    Rounds { expression: String },
    #[error(
        "expression {expression:?} and those before it would together need more work than is allowed: read fewer or smaller values"
    )]
    Spent { expression: String },
    #[error("there are more than {MAX_EXPRESSIONS} expressions")]
    TooMany,
    #[error("result of expression {expression:?} has more than {MAX_OUTPUT} bytes")]
    TooLarge { expression: String },
    #[error("expression {expression:?} failed: {cause}")]
    Evaluation { expression: String, cause: String },
    #[error("result of expression {expression:?} is {found}, and must be {wanted}")]
    Type { expression: String, found: &'static str, wanted: &'static str },
    #[error("text has `${{{{` without `}}}}`: {0:?}")]
    Open(String),
}

fn did_you_mean(similar: Option<&str>) -> String {
    similar.map(|similar| format!("; did you mean {similar:?}?")).unwrap_or_default()
}

/// Returns the beginning of a cause: it may repeat all values.
fn cause(text: &str) -> String {
    match text.char_indices().nth(MAX_CAUSE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Returns the known name that is most like an unknown one.
fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |other: &&str| strsim::damerau_levenshtein(name, other);
    let nearest = known.into_iter().min_by_key(distance)?;
    (distance(&nearest) <= name.len().div_ceil(3)).then(|| nearest.to_owned())
}
