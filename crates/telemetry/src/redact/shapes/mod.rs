//! Shapes of known kinds of keys, such as GitHub tokens, AWS keys, JSON web tokens, passwords in URLs and PEM private
//! keys. Must not know declared values.
//!
//! Bytes are scanned once: a search for the prefixes of all kinds, and for each prefix a check of what follows. The
//! extents of runs are remembered, so that prefixes within one run do not cause it to be read again: the work is linear
//! in the input, whatever that contains.

mod candidate;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use self::candidate::{Candidate, Kind, Scanner};
use super::PLACEHOLDER;

/// Prefixes of all kinds. None requires a word boundary in front: an escaped line break or a color code is none.
const SHAPES: &[(&str, Kind)] = &[
    ("sk-ant-", Kind::word(16)),
    ("sk-proj-", Kind::word_with_digit(20)),
    ("sk-svcacct-", Kind::word_with_digit(20)),
    ("sk-admin-", Kind::word_with_digit(20)),
    ("sk-or-v1-", Kind::word_with_digit(20)),
    ("sk-", Kind::letters(32)),
    ("sk_live_", Kind::letters(16)),
    ("sk_test_", Kind::letters(16)),
    ("rk_live_", Kind::letters(16)),
    ("ghp_", Kind::letters(20)),
    ("gho_", Kind::letters(20)),
    ("ghu_", Kind::letters(20)),
    ("ghs_", Kind::letters(20)),
    ("ghr_", Kind::letters(20)),
    ("github_pat_", Kind::word(20)),
    ("glpat-", Kind::word_with_digit(20)),
    ("hf_", Kind::letters(30)),
    ("npm_", Kind::letters(30)),
    ("pypi-AgE", Kind::word(50)),
    ("AKIA", Kind::Aws),
    ("ASIA", Kind::Aws),
    ("AIza", Kind::Google),
    ("ya29.", Kind::word(20)),
    ("xoxa-", Kind::word(10)),
    ("xoxb-", Kind::word(10)),
    ("xoxe-", Kind::word(10)),
    ("xoxo-", Kind::word(10)),
    ("xoxp-", Kind::word(10)),
    ("xoxr-", Kind::word(10)),
    ("xoxs-", Kind::word(10)),
    ("xapp-", Kind::word(10)),
    ("AGE-SECRET-KEY-1", Kind::letters(40)),
    ("AccountKey=", Kind::base64(40)),
    ("SharedAccessKey=", Kind::base64(40)),
    // Rota's own, in hexadecimal digits.
    ("rota_worker_", Kind::letters(40)),
    ("eyJ", Kind::Jwt),
    ("-----BEGIN ", Kind::PrivateKey),
    ("://", Kind::UrlPassword),
    ("uthorization", Kind::Authorization),
    ("UTHORIZATION", Kind::Authorization),
    ("Bearer ", Kind::Bearer),
    ("bearer ", Kind::Bearer),
];

static PREFIXES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let prefixes = SHAPES.iter().map(|(prefix, _)| prefix);
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(prefixes).ok()
});

/// Longest prefix of [`SHAPES`], in bytes.
const MAX_PREFIX_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Start of the bytes by which the key is recognized; at the key or in front of it.
    pub(super) context: usize,
    pub(super) key: Range<usize>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) found: Vec<Found>,
    /// Start of a suffix that may be the beginning of a key, or the length if there is none.
    pub(super) partial: usize,
}

/// Finds all keys. If more bytes may follow, the scan ends in front of the first possible key that reaches the end.
pub(super) fn scan(bytes: &[u8], complete: bool) -> Scan {
    scan_with(&mut Scanner::new(bytes, complete))
}

fn scan_with(scanner: &mut Scanner<'_>) -> Scan {
    let (bytes, complete) = (scanner.bytes, scanner.complete);
    let mut scan = Scan { found: Vec::new(), partial: bytes.len() };
    // A constant that the tests compile. Fails closed nevertheless.
    let Some(prefixes) = &*PREFIXES else {
        scan.found.push(Found { context: 0, key: 0..bytes.len() });
        return scan;
    };
    let mut at = 0;
    while let Some(hit) = prefixes.find(Input::new(bytes).span(at..bytes.len())) {
        let kind = SHAPES[hit.pattern().as_usize()].1;
        match scanner.check(kind, hit.start(), hit.end()) {
            Candidate::Key(key) => {
                at = key.end.max(hit.end());
                scan.found.push(Found { context: hit.start(), key });
            }
            Candidate::Partial => {
                scan.partial = hit.start();
                return scan;
            }
            // A prefix may begin inside of another one.
            Candidate::None => at = hit.start() + 1,
        }
    }
    if !complete {
        let tail = bytes.len().saturating_sub(MAX_PREFIX_BYTES).max(at.min(bytes.len()));
        let begins = |start: &usize| {
            let rest = &bytes[*start..];
            SHAPES.iter().any(|(prefix, _)| prefix.as_bytes().starts_with(rest))
        };
        scan.partial = (tail..bytes.len()).find(begins).unwrap_or(bytes.len());
    }
    scan
}

pub(super) fn replace(bytes: &[u8]) -> Cow<'_, [u8]> {
    let found = scan(bytes, true).found;
    if found.is_empty() {
        return Cow::Borrowed(bytes);
    }
    let mut redacted = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for Found { key, .. } in found {
        redacted.extend_from_slice(&bytes[at..key.start]);
        redacted.extend_from_slice(PLACEHOLDER.as_bytes());
        at = key.end;
    }
    redacted.extend_from_slice(&bytes[at..]);
    Cow::Owned(redacted)
}

#[cfg(test)]
pub(super) fn count_steps(bytes: &[u8], complete: bool) -> usize {
    let mut scanner = Scanner::new(bytes, complete);
    scan_with(&mut scanner);
    scanner.steps
}
