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

/// Returns a text that notifies no one, closes nothing, refers to nothing and is no command.
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
            // Another way to write these.
            '&' => follows == '#' || follows.is_ascii_alphabetic(),
            _ => false,
        };
        if breaks {
            out.push(SPACE);
        }
        last = next;
    }
    out
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
    let mut target = rest.skip_while(|letter| *letter == ':' || letter.is_whitespace());
    target.by_ref().take_while(|letter| !letter.is_whitespace()).any(|letter| letter.is_ascii_digit())
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
            ("closes: https://forge.example/o/r/issues/9", "c~loses: https://forge.example/o/r/issues/9"),
            ("RESOLVED GH-7; Closing KEY-1", "R~ESOLVED GH-7; C~losing KEY-1"),
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
            "",
        ] {
            assert_eq!(neutral(text), text);
        }
    }
}
