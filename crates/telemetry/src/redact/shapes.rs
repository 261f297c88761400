//! Shapes of known kinds of keys, such as GitHub tokens, AWS keys, JSON web tokens and PEM private keys. Must not know
//! declared values.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::bytes::Regex;

use super::PLACEHOLDER;

/// Prefixes of all kinds. Bytes without any of them contain no key, which spares most output the regular expression.
const KEY_PREFIXES: &[&str] = &[
    "sk-ant-",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "AKIA",
    "ASIA",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxo-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "eyJ",
    "-----BEGIN ",
];

/// Patterns of all kinds. None requires a word boundary in front: an escaped line break or a color code is none.
const KEY_PATTERNS: &str = r"(?x-u)
    sk-ant-[A-Za-z0-9_-]{16,}
  | gh[pousr]_[A-Za-z0-9]{20,}
  | github_pat_[A-Za-z0-9_]{20,}
  | (?:AKIA|ASIA)[A-Z0-9]{16}
  | xox[abeoprs]-[A-Za-z0-9-]{10,}
  | xapp-[A-Za-z0-9-]{10,}
  # A JSON web token: header, claims, signature.
  | eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}
  # A private key up to its END line, or as far as it may be one if that line is missing.
  | -----BEGIN\x20[A-Z0-9\x20]{0,40}PRIVATE\x20KEY(?:\x20BLOCK)?-----
    (?: (?s:.*?)-----END\x20[A-Z0-9\x20]{0,40}PRIVATE\x20KEY(?:\x20BLOCK)?-----
      | [A-Za-z0-9+/=\s\\:.,-]* )
";

static PREFIXES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(KEY_PREFIXES).ok());
static PATTERNS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(KEY_PATTERNS).ok());

pub(super) fn replace(bytes: &[u8]) -> Cow<'_, [u8]> {
    // Both are constants that the tests compile. Fails closed nevertheless.
    let (Some(prefixes), Some(patterns)) = (&*PREFIXES, &*PATTERNS) else {
        return Cow::Owned(PLACEHOLDER.into());
    };
    if prefixes.is_match(bytes) {
        patterns.replace_all(bytes, PLACEHOLDER.as_bytes())
    } else {
        Cow::Borrowed(bytes)
    }
}

/// Returns the start of a suffix that may be the beginning of a key, or the length if there is none.
pub(super) fn start_of_partial_match(bytes: &[u8]) -> usize {
    let open = open_private_key(bytes);
    let word = bytes.iter().rposition(|byte| !is_key_byte(*byte)).map_or(0, |last| last + 1);
    let tail = &bytes[word..];
    let may_start = |start: &usize| {
        let rest = &tail[*start..];
        KEY_PREFIXES
            .iter()
            .any(|prefix| rest.starts_with(prefix.as_bytes()) || prefix.as_bytes().starts_with(rest))
    };
    let key = (0..tail.len()).find(may_start).map_or(bytes.len(), |start| word + start);
    open.unwrap_or(bytes.len()).min(key)
}

/// Returns the start of a key that extends across `offset`.
pub(super) fn start_of_match_across(bytes: &[u8], offset: usize) -> Option<usize> {
    let (prefixes, patterns) = (PREFIXES.as_ref()?, PATTERNS.as_ref()?);
    if !prefixes.is_match(bytes) {
        return None;
    }
    let found = patterns.find_iter(bytes).find(|found| found.end() > offset)?;
    (found.start() < offset).then(|| found.start())
}

/// Whether a byte may be part of a key, or of the dashes around a private key.
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Returns the start of a private key whose END line has not arrived.
fn open_private_key(bytes: &[u8]) -> Option<usize> {
    // Cheap exit for ordinary output.
    if !PREFIXES.as_ref()?.is_match(bytes) {
        return None;
    }
    let last = |marker: &[u8]| bytes.windows(marker.len()).rposition(|part| part == marker);
    let begin = last(b"-----BEGIN ")?;
    let after = &bytes[begin..];
    let line = after.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let ended = last(b"-----END ").is_some_and(|end| {
        // The END line must be complete, too.
        end > begin && bytes[end + 9..].windows(5).any(|part| part == b"-----")
    });
    // A certificate or the like is recognized by its BEGIN line.
    let other = line.len() < after.len() && !line.windows(11).any(|part| part == b"PRIVATE KEY");
    (!ended && !other).then_some(begin)
}
