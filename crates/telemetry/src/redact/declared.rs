//! Values that somebody declared secret. Knows no shapes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::MARK;

/// Shorter values are in every other word.
const SHORTEST: usize = 6;
/// Shorter lines of a longer value are; a brace alone is no secret.
const SHORTEST_LINE: usize = 16;
/// Longer values are looked for in parts of this size.
const PART: usize = 1024;

/// The values, ready to be looked for.
#[derive(Default)]
pub(super) struct Declared {
    patterns: Vec<String>,
    search: Search,
}

#[derive(Default)]
enum Search {
    #[default]
    Nothing,
    These(AhoCorasick),
    /// They cannot be looked for, and so nothing is told.
    Everything,
}

impl Declared {
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = BTreeSet::new();
        for value in values {
            let value = value.trim();
            add(&mut all, value);
            // As it comes out of a double, which is how JSON's numbers are kept.
            if let Some(number) = value.parse().ok().filter(|number: &f64| number.is_finite()) {
                add(&mut all, &number.to_string());
            }
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
            lines.for_each(|line| add(&mut all, line));
        }
        // As it is with most attempts, and to build a search for nothing costs more than a small task does.
        if all.is_empty() {
            return Self::default();
        }
        let patterns: Vec<_> = all.into_iter().collect();
        let search = match AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns) {
            Ok(these) => Search::These(these),
            Err(_) => Search::Everything,
        };
        Self { patterns, search }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub(super) fn replace<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.search {
            Search::Nothing => Cow::Borrowed(bytes),
            Search::Everything => Cow::Owned(MARK.into()),
            Search::These(these) if !these.is_match(bytes) => Cow::Borrowed(bytes),
            Search::These(these) => {
                let mut clean = Vec::with_capacity(bytes.len());
                these.replace_all_with_bytes(bytes, &mut clean, |_, _, clean| {
                    clean.extend_from_slice(MARK.as_bytes());
                    true
                });
                Cow::Owned(clean)
            }
        }
    }

    /// Where a value begins that lies across a place.
    pub(super) fn across(&self, bytes: &[u8], place: usize) -> Option<usize> {
        let Search::These(these) = &self.search else { return None };
        let found = these.find_iter(bytes).find(|found| found.end() > place)?;
        (found.start() < place).then(|| found.start())
    }

    /// Where the end of these bytes may be the beginning of a value; their length if it is not.
    pub(super) fn begins(&self, bytes: &[u8]) -> usize {
        let of_one = |pattern: &String| {
            let pattern = pattern.as_bytes();
            let first = bytes.len().saturating_sub(pattern.len() - 1);
            (first..bytes.len()).find(|at| pattern.starts_with(&bytes[*at..]))
        };
        self.patterns.iter().filter_map(of_one).min().unwrap_or(bytes.len())
    }
}

/// A value and how it looks inside of JSON, in parts.
fn add(all: &mut BTreeSet<String>, value: &str) {
    if value.len() < SHORTEST {
        return;
    }
    let quoted = format!("{value:?}");
    let escaped = serde_json::to_string(value).unwrap_or_default();
    for form in [value, quoted.trim_matches('"'), escaped.trim_matches('"')] {
        let mut rest = form;
        while rest.len() > PART + SHORTEST {
            let (part, after) = rest.split_at(rest.floor_char_boundary(PART));
            all.insert(part.to_owned());
            rest = after;
        }
        all.insert(rest.to_owned());
    }
}
