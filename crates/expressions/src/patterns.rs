//! Patterns of `matches`. A pattern of a few bytes can need megabytes and milliseconds: those that are too large are refused, and
//! each is compiled as rarely as possible.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::ExecutionError;
use regex_automata::meta::Regex;

/// Most bytes of a pattern, and of a compiled one. Those of JSON Schemas have the same limits.
const MAX_LENGTH: usize = 1 << 10;
const MAX_COMPILED: usize = 128 << 10;
/// Bytes of a compiled pattern that are passed in about the time of a unit, for each byte of the text.
const STEP: u64 = 512;
/// Units of a search for the largest pattern, for each byte of the text.
pub(crate) const MAX_STEPS: u64 = 1 + 4 * MAX_COMPILED as u64 / STEP;
/// Units that compiling a pattern needs, if nothing is known of it.
pub(crate) const COMPILE: u64 = 300_000;
/// Most patterns among the values that an evaluation keeps.
pub(crate) const MAX_KEPT: usize = 16;

/// Compiled pattern, with what it has cost.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// Units that compiling it has needed.
    pub(crate) cost: u64,
}

/// Patterns that stand in an expression.
pub(crate) type Literals = BTreeMap<String, Pattern>;
/// Patterns among the values of an evaluation, or why they are none.
pub(crate) type Kept<'a> = BTreeMap<&'a str, Result<Pattern, String>>;

impl Pattern {
    pub(crate) fn compile(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_LENGTH {
            return Err(format!("has {} bytes; at most {MAX_LENGTH} are allowed", pattern.len()));
        }
        let limits = Regex::config()
            .nfa_size_limit(Some(MAX_COMPILED))
            .onepass_size_limit(Some(MAX_COMPILED))
            .dfa_size_limit(Some(MAX_COMPILED))
            .hybrid_cache_capacity(MAX_COMPILED);
        let built = Regex::builder().configure(limits).build(pattern);
        let regex = built.map_err(|error| match (error.size_limit(), error.syntax_error()) {
            (Some(_), _) => format!("has more than {MAX_COMPILED} bytes when compiled"),
            (_, Some(error)) => format!("is invalid: {error}"),
            _ => format!("is invalid: {error}"),
        })?;
        let cost = 2000 + 100 * pattern.len() as u64 + regex.memory_usage() as u64 / 2;
        Ok(Self { regex, cost })
    }

    /// Returns the units of a search, for each byte of the text.
    pub(crate) fn steps(&self) -> u64 {
        (1 + self.regex.memory_usage() as u64 / STEP).min(MAX_STEPS)
    }
}

/// Patterns that an evaluation knows before it begins.
#[derive(Debug)]
pub(crate) struct Patterns {
    literals: Arc<Literals>,
    kept: BTreeMap<String, Result<Pattern, String>>,
}

impl Patterns {
    pub(crate) fn new(literals: &Arc<Literals>, kept: Kept<'_>) -> Self {
        let kept = kept.into_iter().map(|(text, pattern)| (text.to_owned(), pattern)).collect();
        Self { literals: Arc::clone(literals), kept }
    }

    pub(crate) fn matches(&self, pattern: &str, text: &str) -> Result<bool, ExecutionError> {
        let matches = |pattern: &Pattern| pattern.regex.is_match(text);
        let invalid = |cause: &str| {
            let start: String = pattern.chars().take(80).collect();
            ExecutionError::function_error("matches", format!("pattern {start:?} {cause}"))
        };
        if let Some(known) = self.literals.get(pattern) {
            return Ok(matches(known));
        }
        match self.kept.get(pattern) {
            Some(kept) => kept.as_ref().map(matches).map_err(|why| invalid(why)),
            None => Pattern::compile(pattern).map(|compiled| matches(&compiled)).map_err(|why| invalid(&why)),
        }
    }
}
