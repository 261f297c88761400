//! Search for declared secret values. Must not know shapes of keys.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::PLACEHOLDER;

/// Shorter values occur in ordinary words.
const MIN_VALUE_LENGTH: usize = 6;
/// Shorter lines of a multi-line value are not secret by themselves: a brace, a tag.
const MIN_LINE_LENGTH: usize = 16;
/// Longer values are searched for in chunks of this size.
const CHUNK_SIZE: usize = 1024;

#[derive(Default)]
pub(super) struct Declared {
    patterns: Vec<String>,
    search: Search,
}

#[derive(Default)]
enum Search {
    #[default]
    Empty,
    Patterns(AhoCorasick),
    /// The automaton could not be built. Fails closed: everything is redacted.
    Failed,
}

impl Declared {
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut patterns = BTreeSet::new();
        for value in values {
            let value = value.trim();
            add(&mut patterns, value);
            // JSON numbers pass through a double, which prints other digits.
            if let Some(number) = value.parse().ok().filter(|number: &f64| number.is_finite()) {
                add(&mut patterns, &number.to_string());
            }
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= MIN_LINE_LENGTH);
            lines.for_each(|line| add(&mut patterns, line));
        }
        // Most attempts declare nothing, and building an empty automaton costs more than a small task.
        if patterns.is_empty() {
            return Self::default();
        }
        let patterns: Vec<_> = patterns.into_iter().collect();
        let search = match AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns) {
            Ok(automaton) => Search::Patterns(automaton),
            Err(_) => Search::Failed,
        };
        Self { patterns, search }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub(super) fn replace<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.search {
            Search::Empty => Cow::Borrowed(bytes),
            Search::Failed => Cow::Owned(PLACEHOLDER.into()),
            Search::Patterns(automaton) if !automaton.is_match(bytes) => Cow::Borrowed(bytes),
            Search::Patterns(automaton) => {
                let mut redacted = Vec::with_capacity(bytes.len());
                automaton.replace_all_with_bytes(bytes, &mut redacted, |_, _, redacted| {
                    redacted.extend_from_slice(PLACEHOLDER.as_bytes());
                    true
                });
                Cow::Owned(redacted)
            }
        }
    }

    /// Returns the start of a value that extends across `offset`.
    pub(super) fn start_of_match_across(&self, bytes: &[u8], offset: usize) -> Option<usize> {
        let Search::Patterns(automaton) = &self.search else { return None };
        let found = automaton.find_iter(bytes).find(|found| found.end() > offset)?;
        (found.start() < offset).then(|| found.start())
    }

    /// Returns the start of a suffix that may be the beginning of a value, or the length if there is none.
    pub(super) fn start_of_partial_match(&self, bytes: &[u8]) -> usize {
        let partial = |pattern: &String| {
            let pattern = pattern.as_bytes();
            let first = bytes.len().saturating_sub(pattern.len() - 1);
            (first..bytes.len()).find(|start| pattern.starts_with(&bytes[*start..]))
        };
        self.patterns.iter().filter_map(partial).min().unwrap_or(bytes.len())
    }
}

/// Adds a value and its forms inside JSON and Rust literals, in chunks.
fn add(patterns: &mut BTreeSet<String>, value: &str) {
    if value.len() < MIN_VALUE_LENGTH {
        return;
    }
    let debug = format!("{value:?}");
    let json = serde_json::to_string(value).unwrap_or_default();
    for form in [value, debug.trim_matches('"'), json.trim_matches('"')] {
        let mut rest = form;
        while rest.len() > CHUNK_SIZE + MIN_VALUE_LENGTH {
            let (chunk, after) = rest.split_at(rest.floor_char_boundary(CHUNK_SIZE));
            patterns.insert(chunk.to_owned());
            rest = after;
        }
        patterns.insert(rest.to_owned());
    }
}
