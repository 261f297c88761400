//! Shapes of known kinds of keys. Knows no values.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::bytes::Regex;

use super::MARK;

/// How each kind begins: what has none of these has no key.
pub(super) const BEGINNINGS: &[&str] = &[
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

/// The kinds. None asks for a boundary before it: an escaped line break or a colour is none.
const KINDS: &str = r"(?x-u)
    sk-ant-[A-Za-z0-9_-]{16,}
  | gh[pousr]_[A-Za-z0-9]{20,}
  | github_pat_[A-Za-z0-9_]{20,}
  | (?:AKIA|ASIA)[A-Z0-9]{16}
  | xox[abeoprs]-[A-Za-z0-9-]{10,}
  | xapp-[A-Za-z0-9-]{10,}
  # A JSON web token: header, claims, signature.
  | eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}
  # A private key up to its end; if that is missing, as far as it may be one.
  | -----BEGIN\x20[A-Z0-9\x20]{0,40}PRIVATE\x20KEY(?:\x20BLOCK)?-----
    (?: (?s:.*?)-----END\x20[A-Z0-9\x20]{0,40}PRIVATE\x20KEY(?:\x20BLOCK)?-----
      | [A-Za-z0-9+/=\s\\:.,-]* )
";

static BEGIN: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(BEGINNINGS).ok());
static KIND: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(KINDS).ok());

pub(super) fn replace(bytes: &[u8]) -> Cow<'_, [u8]> {
    // Both are constants that a test has seen to be sound; without them nothing would be told.
    let (Some(begin), Some(kind)) = (&*BEGIN, &*KIND) else { return Cow::Owned(MARK.into()) };
    if begin.is_match(bytes) { kind.replace_all(bytes, MARK.as_bytes()) } else { Cow::Borrowed(bytes) }
}

/// Where a key may begin that could go on after these bytes; their length if none does.
pub(super) fn begins(bytes: &[u8]) -> usize {
    let open = open_private_key(bytes);
    let word = bytes.iter().rposition(|byte| !is_part(*byte)).map_or(0, |at| at + 1);
    let tail = &bytes[word..];
    let begun = |at: &usize| {
        let rest = &tail[*at..];
        BEGINNINGS.iter().any(|one| rest.starts_with(one.as_bytes()) || one.as_bytes().starts_with(rest))
    };
    let key = (0..tail.len()).find(begun).map_or(bytes.len(), |at| word + at);
    open.unwrap_or(bytes.len()).min(key)
}

/// Where a key begins that lies across a place.
pub(super) fn across(bytes: &[u8], place: usize) -> Option<usize> {
    let (begin, kind) = (BEGIN.as_ref()?, KIND.as_ref()?);
    if !begin.is_match(bytes) {
        return None;
    }
    let found = kind.find_iter(bytes).find(|found| found.end() > place)?;
    (found.start() < place).then(|| found.start())
}

/// A byte that may be inside of a key, or of the dashes before a private one.
fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Where a private key begins that has not ended.
fn open_private_key(bytes: &[u8]) -> Option<usize> {
    // Most output has nothing of all this, and there is much of it.
    if !BEGIN.as_ref()?.is_match(bytes) {
        return None;
    }
    let last = |what: &[u8]| bytes.windows(what.len()).rposition(|part| part == what);
    let begin = last(b"-----BEGIN ")?;
    let after = &bytes[begin..];
    let line = after.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let ended = last(b"-----END ").is_some_and(|end| {
        // Its own line must be whole, too.
        end > begin && bytes[end + 9..].windows(5).any(|part| part == b"-----")
    });
    // Something else, such as a certificate, is seen by its first line.
    let other = line.len() < after.len() && !line.windows(11).any(|part| part == b"PRIVATE KEY");
    (!ended && !other).then_some(begin)
}
