//! Search for declared secret values. Must not know shapes of keys.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::PLACEHOLDER;
use super::forms::forms;

/// Shorter values occur in ordinary words.
const MIN_VALUE_BYTES: usize = 6;
/// Shorter lines of a multi-line value are not secret by themselves: a brace, a tag.
const MIN_LINE_BYTES: usize = 16;
/// Longer values are searched for in chunks of this size.
const CHUNK_BYTES: usize = 1024;
/// Above this size of all patterns, the automaton is built in a form that takes less memory and time to build.
const MAX_DFA_BYTES: usize = 8 << 10;
/// Longer values are not taken for ordinary words.
const MAX_WORD_BYTES: usize = 12;

#[derive(Default)]
pub(super) struct Declared {
    all: Values,
    /// Without ordinary words, if there are any.
    uncommon: Option<Values>,
}

impl Declared {
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        let uncommon: Vec<_> = values.iter().copied().filter(|value| !is_common_word(value)).collect();
        let some_common = uncommon.len() < values.len();
        Self { uncommon: some_common.then(|| Values::new(&uncommon)), all: Values::new(&values) }
    }

    pub(super) fn all(&self) -> &Values {
        &self.all
    }

    pub(super) fn uncommon(&self) -> &Values {
        self.uncommon.as_ref().unwrap_or(&self.all)
    }
}

/// Whether a value that is long enough to be redacted may well occur in a text that does not mean it: one short word
/// of letters, such as `postgres` or `production`.
pub fn is_common_word(value: &str) -> bool {
    let value = value.trim();
    let rest = value.strip_prefix(|first: char| first.is_ascii_uppercase()).unwrap_or(value);
    let word = |is: fn(&u8) -> bool| rest.as_bytes().iter().all(is);
    (MIN_VALUE_BYTES..=MAX_WORD_BYTES).contains(&value.len())
        && (word(u8::is_ascii_lowercase) || word(u8::is_ascii_uppercase))
}

/// Search for a set of values in all of their forms.
#[derive(Default)]
pub(super) struct Values {
    /// Sorted, for the search for beginnings of values.
    patterns: Vec<String>,
    max_pattern_bytes: usize,
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

impl Values {
    fn new(values: &[&str]) -> Self {
        let mut patterns = BTreeSet::new();
        for value in values {
            let value = value.trim();
            add(&mut patterns, value);
            // JSON numbers pass through a double, which prints other digits.
            if let Some(number) = value.parse().ok().filter(|number: &f64| number.is_finite()) {
                add(&mut patterns, &number.to_string());
            }
            if value.contains('\n') {
                let lines = value.lines().map(str::trim).filter(|line| line.len() >= MIN_LINE_BYTES);
                lines.for_each(|line| add(&mut patterns, line));
            }
        }
        // Most attempts declare nothing, and building an empty automaton costs more than a small task.
        if patterns.is_empty() {
            return Self::default();
        }
        let patterns: Vec<_> = patterns.into_iter().collect();
        let large = patterns.iter().map(String::len).sum::<usize>() > MAX_DFA_BYTES;
        let kind = large.then_some(AhoCorasickKind::ContiguousNFA);
        let search =
            match AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).kind(kind).build(&patterns) {
                Ok(automaton) => Search::Patterns(automaton),
                Err(_) => Search::Failed,
            };
        let max_pattern_bytes = patterns.iter().map(String::len).max().unwrap_or(0);
        Self { patterns, max_pattern_bytes, search }
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

    /// Finds all values, in order.
    pub(super) fn find(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        match &self.search {
            Search::Patterns(automaton) => automaton.find_iter(bytes).map(|found| found.range()).collect(),
            Search::Empty | Search::Failed => Vec::new(),
        }
    }

    /// Returns the start of a suffix that may be the beginning of a value, or the length if there is none.
    pub(super) fn start_of_partial_match(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.max_pattern_bytes.saturating_sub(1));
        let begins = |start: &usize| {
            let rest = &bytes[*start..];
            let next = self.patterns.partition_point(|pattern| pattern.as_bytes() < rest);
            // A whole value is no beginning of itself, but may be one of a longer value.
            self.patterns[next..]
                .iter()
                .take(2)
                .any(|pattern| pattern.len() > rest.len() && pattern.as_bytes().starts_with(rest))
        };
        (first..bytes.len()).find(begins).unwrap_or(bytes.len())
    }
}

/// Adds all forms of a value, in chunks.
fn add(patterns: &mut BTreeSet<String>, value: &str) {
    if value.len() < MIN_VALUE_BYTES {
        return;
    }
    for form in forms(value) {
        let mut rest = form.as_str();
        while rest.len() > CHUNK_BYTES + MIN_VALUE_BYTES {
            let (chunk, after) = rest.split_at(rest.floor_char_boundary(CHUNK_BYTES));
            patterns.insert(chunk.to_owned());
            rest = after;
        }
        patterns.insert(rest.to_owned());
    }
}
