//! Texts of agents without what forges act on: mentions, references that close issues, and commands.
//!
//! Readers see the same text. A space without width stands where a forge would recognize something.

use std::iter::Peekable;
use std::str::Chars;

const SPACE: char = '\u{200b}';
/// Beginnings of the words with which forges close issues: close, fix, resolve, implement, in all their forms.
const KEYWORDS: [&str; 6] = ["close", "closing", "fix", "resolve", "resolving", "implement"];
/// Letters of the longest of these words.
const MAX_KEYWORD: usize = 12;
/// Characters of an address; more than the deepest groups have.
const MAX_ADDRESS: usize = 8192;
/// Characters behind it in which what it closes begins; more than a body has spaces for no reason.
const MAX_DISTANCE: usize = 4096;

/// Returns a text that notifies no one, closes nothing, is mentioned in no issue or request, and is no command. Ids of commits stay
/// links, of which the commits show nothing.
pub fn neutral(text: &str) -> String {
    let mut lines = text.split('\n').map(line);
    let mut all = lines.next().unwrap_or_default();
    for line in lines {
        all.push('\n');
        all.push_str(&line);
    }
    all
}

fn line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    // Commands of GitLab.
    if line.trim_start().starts_with('/') {
        out.push(SPACE);
    }
    let mut last = ' ';
    let mut rest = line.chars().peekable();
    while let Some(next) = rest.next() {
        // Only at the beginning of a word.
        if next.is_ascii_alphabetic() && !last.is_alphanumeric() && closes(next, rest.clone()) {
            out.push(next);
            out.push(SPACE);
            last = next;
            continue;
        }
        out.push(next);
        let follows = rest.peek().copied().unwrap_or(' ');
        let breaks = match next {
            // Markup between the two does not count for forges.
            '@' => !follows.is_whitespace(),
            '#' | '!' => follows.is_ascii_digit() || "<\\*&_`".contains(follows),
            // Another way to write these, and epics of GitLab.
            '&' => follows == '#' || follows.is_ascii_alphanumeric(),
            '-' => follows.is_ascii_digit() && ends_with_word(&out, "gh-"),
            ':' => has_number(rest.clone()),
            _ => false,
        };
        if breaks {
            out.push(SPACE);
        }
        last = next;
    }
    out
}

/// Whether a text ends with something, in any case, that begins a word.
fn ends_with_word(text: &str, end: &str) -> bool {
    let Some((before, last)) = text.len().checked_sub(end.len()).and_then(|at| text.split_at_checked(at))
    else {
        return false;
    };
    last.eq_ignore_ascii_case(end) && !before.ends_with(char::is_alphanumeric)
}

/// Whether a colon and this are part of an address that has a number in its path, as those of issues and requests have. Slashes may
/// be escaped.
fn has_number(rest: Peekable<Chars<'_>>) -> bool {
    let address: String = rest
        .take(MAX_ADDRESS)
        .take_while(|next| !next.is_whitespace())
        .filter(|next| *next != '\\')
        .collect();
    let Some(address) = address.strip_prefix("//") else { return false };
    address.split('/').skip(1).any(|part| {
        let digits = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        // Versions and words that begin with digits are none.
        let rest = digits.strip_prefix('.').unwrap_or(digits);
        digits.len() < part.len() && !rest.starts_with(char::is_alphanumeric)
    })
}

/// Whether a word is one that closes what follows.
fn closes(first: char, mut rest: Peekable<Chars<'_>>) -> bool {
    let mut word = String::from(first.to_ascii_lowercase());
    while let Some(letter) = rest.next_if(char::is_ascii_alphabetic) {
        word.push(letter.to_ascii_lowercase());
        if word.len() > MAX_KEYWORD {
            return false;
        }
    }
    if !KEYWORDS.iter().any(|keyword| word.starts_with(keyword)) {
        return false;
    }
    let rest: String = rest.take(MAX_DISTANCE).collect();
    let mut words =
        rest.split_whitespace().map(|word| word.trim_matches(':')).filter(|word| !word.is_empty());
    let target = words.find(|word| !["issue", "issues"].contains(&word.to_ascii_lowercase().as_str()));
    target.is_some_and(|target| target.contains(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forges_recognize_nothing() {
        for (text, wanted) in [
            ("ask @team/core, a@b.example", "ask @~team/core, a@~b.example"),
            ("&#64;admin &commat;admin @<!-- -->admin", "&~#~64;admin &~commat;admin @~<!-- -->admin"),
            ("Fixes #12 and o/r#13, !14", "F~ixes #~12 and o/r#~13, !~14"),
            ("closes: https://forge.example/o/r/issues/9", "c~loses: https:~//forge.example/o/r/issues/9"),
            (
                "Closes issue https://forge.example/o/r/-/issues/9",
                "C~loses issue https:~//forge.example/o/r/-/issues/9",
            ),
            ("Fixes  issues: KEY-2", "F~ixes  issues: KEY-2"),
            (
                "see (https://forge.example/o/r/pull/12#x), http:\\//f.example/-/epics\\/3.",
                "see (https:~//forge.example/o/r/pull/12#x), http:~\\//f.example/-/epics\\/3.",
            ),
            ("as in gh-7, &9 and team&9", "as in gh-~7, &~9 and team&~9"),
            ("RESOLVED GH-7; Closing KEY-1", "R~ESOLVED GH-~7; C~losing KEY-1"),
            ("one\n/merge\n  /approve", "one\n~/merge\n~  /approve"),
        ] {
            assert_eq!(neutral(text), wanted.replace('~', "\u{200b}"), "{text}");
        }
    }

    #[test]
    fn ordinary_texts_stay() {
        for text in [
            "Fixes the parser.\n\n# Title\n- a/b & c #tag x != y",
            "prefix 12, closest, at @ sign",
            "C# 7",
            "see https://docs.example/1.2.3/guide and http://localhost:8080/a, high-5, 1/2",
            "Fix the parser: issue the command",
            "",
        ] {
            assert_eq!(neutral(text), text);
        }
    }
}
