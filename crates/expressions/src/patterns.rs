//! Patterns of `matches`. A pattern of a few bytes can need megabytes and milliseconds: those that are too large are refused, and
//! each is compiled as rarely as possible.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use cel::ExecutionError;
use regex_automata::meta::Regex;
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{self, AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSetItem, Span, Visitor};

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
        let text = ascii(pattern)?;
        let limits = Regex::config()
            .nfa_size_limit(Some(MAX_COMPILED))
            .onepass_size_limit(Some(MAX_COMPILED))
            .dfa_size_limit(Some(MAX_COMPILED))
            .hybrid_cache_capacity(MAX_COMPILED);
        let built = Regex::builder().configure(limits).build(&text);
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

/// Returns a pattern whose Perl classes and word boundaries have only ASCII characters, as those of RE2 do, in place of large classes of
/// Unicode. Everything else keeps its meaning.
fn ascii(pattern: &str) -> Result<String, String> {
    let parsed = Parser::new().parse(pattern).map_err(|error| format!("is invalid: {error}"))?;
    let Ok(text) = ast::visit(&parsed, AsciiText { pattern, text: String::new(), copied: 0 });
    Ok(text)
}

/// Text of a pattern, of which the first bytes have been copied. Visits go from its start to its end.
struct AsciiText<'a> {
    pattern: &'a str,
    text: String,
    copied: usize,
}

impl AsciiText<'_> {
    fn replace(&mut self, span: &Span, replacement: &str) {
        self.text += &self.pattern[self.copied..span.start.offset];
        self.text += replacement;
        self.copied = span.end.offset;
    }

    /// Replaces a class by one in brackets, which may stand in others.
    fn replace_class(&mut self, class: &ClassPerl) {
        let characters = match class.kind {
            ClassPerlKind::Digit => "0-9",
            // A literal space would be skipped in verbose mode.
            ClassPerlKind::Space => r"\t\n\f\r\x20",
            ClassPerlKind::Word => "0-9A-Za-z_",
        };
        let negation = if class.negated { "^" } else { "" };
        self.replace(&class.span, &format!("[{negation}{characters}]"));
    }
}

impl Visitor for AsciiText<'_> {
    type Output = String;
    type Err = Infallible;

    fn finish(mut self) -> Result<String, Infallible> {
        self.text += &self.pattern[self.copied..];
        Ok(self.text)
    }

    fn visit_pre(&mut self, part: &Ast) -> Result<(), Infallible> {
        match part {
            Ast::ClassPerl(class) => self.replace_class(class),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText => {}
                _ => {
                    let Span { start, end } = assertion.span;
                    let boundary = format!("(?-u:{})", &self.pattern[start.offset..end.offset]);
                    self.replace(&assertion.span, &boundary);
                }
            },
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        if let ClassSetItem::Perl(class) = item {
            self.replace_class(class);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perl_classes_have_only_ascii_characters() {
        for (pattern, matching, others) in [
            (r"^\w{3,64}$", ["abc", "Az_09"], ["ab", "äöü"]),
            (r"^\d+$", ["0", "42"], ["٣", "x"]),
            (r"^\s$", [" ", "\n"], ["\u{a0}", "\u{b}"]),
            (r"^[\w.-]+@$", ["a.b-c@", "_@"], ["ä@", "+@"]),
            (r"\bfoo\b", ["a foo.", "äfoo"], ["afoo", "foo_"]),
            (r"\Bfoo\B", ["afoo_", "xfoox"], ["a foo.", "äfoo_"]),
            (r"\b{start}foo\>", ["äfoo!", "foo"], ["xfoo", "foo1"]),
            (r"^[^\s]+$", ["ab", "\u{a0}"], ["a b", "\t"]),
            (r"^\W$", ["ä", "-"], ["a", "_"]),
            (r"^[^\w-]$", ["ä", "+"], ["a", "-"]),
            (r"^[\D]$", ["٣", "x"], ["3", ""]),
            (r"^[\w--\d]$", ["a", "_"], ["3", "ä"]),
            (r"^[a-c&&\w]$", ["a", "c"], ["d", "ä"]),
            (r"(?x) ^ \s [\s] $ # \w", ["  ", "\t "], [" ", "xx"]),
            (r"(?i)^\w\D$", ["aB", "Aä"], ["ab1", "a1"]),
            (r"^.$", ["a", "ä"], ["ab", "\n"]),
            (r"^\p{L}+$", ["aä", "ж"], ["1", "a_"]),
            (r"^[ä\w]\\w$", [r"ä\w", r"a\w"], ["ää", r"ö\w"]),
        ] {
            let compiled = Pattern::compile(pattern).unwrap();
            for text in matching {
                assert!(compiled.regex.is_match(text), "{pattern} {text:?}");
            }
            for text in others {
                assert!(!compiled.regex.is_match(text), "{pattern} {text:?}");
            }
        }
    }

    #[test]
    fn large_pattern_is_refused_with_its_cause() {
        let refused = |pattern: &str| Pattern::compile(pattern).unwrap_err();
        assert_eq!(refused(r"\pL{200}"), "has more than 131072 bytes when compiled");
        assert!(refused(r"\w(").contains("unclosed group"));
        assert!(refused(r"[\w-z]").contains("invalid range boundary"));
        assert!(refused(&r"\w".repeat(600)).starts_with("has 1200 bytes"));
    }
}
