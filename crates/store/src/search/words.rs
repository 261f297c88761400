//! Words of texts and queries: the same in all stores, so that they find the same.

use rota_core::text::prefix;

use super::MAX_TEXT_BYTES;

/// Characters of a word; the rest of a longer one is left out.
const MAX_WORD_CHARS: usize = 40;
/// Characters from which on a word of a query finds longer ones, too.
pub const MIN_PREFIX_CHARS: usize = 3;
/// Bytes of a text before and after a hit.
const CONTEXT: usize = 80;

/// Word that a task must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// Returns its letters and digits, in lower case.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether it finds the words that begin with it, too.
    pub fn is_prefix(&self) -> bool {
        self.0.chars().nth(MIN_PREFIX_CHARS - 1).is_some()
    }

    pub fn finds(&self, word: &str) -> bool {
        if self.is_prefix() { word.starts_with(&self.0) } else { word == self.0 }
    }
}

/// Returns the words of a text with their places: its longest parts of letters and digits, in lower case.
pub(super) fn of(text: &str) -> impl Iterator<Item = (usize, String)> {
    let separates = |char: char| !char.is_alphanumeric();
    let mut next = 0;
    let parts = text.split_inclusive(separates).map(move |part| {
        let begin = next;
        next += part.len();
        let lower = part.chars().flat_map(char::to_lowercase).filter(|char| char.is_alphanumeric());
        (begin, lower.take(MAX_WORD_CHARS).collect::<String>())
    });
    parts.filter(|(_, word)| !word.is_empty())
}

/// Returns the different words of a query, in order. Everything but letters and digits separates them and has no meaning.
pub fn query_words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for word in of(text).map(|(_, word)| Word(word)) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// Returns the part of a text around the first word that is found, in one line. Only what is indexed of the text is searched.
pub fn first_hit(text: &str, words: &[Word]) -> Option<String> {
    let (at, _) =
        of(prefix(text, MAX_TEXT_BYTES)).find(|(_, word)| words.iter().any(|wanted| wanted.finds(word)))?;
    let from = text.ceil_char_boundary(at.saturating_sub(CONTEXT));
    let to = text.floor_char_boundary(at.saturating_add(CONTEXT));
    let mut line = String::new();
    if from > 0 {
        line.push('…');
    }
    line.push_str(&text[from..to].split_whitespace().collect::<Vec<_>>().join(" "));
    if to < text.len() {
        line.push('…');
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        of(text).map(|(_, word)| word).collect()
    }

    #[test]
    fn words_are_letters_and_digits_in_lower_case() {
        assert_eq!(
            words("Fix src/main.rs: \"Größe\" != 42\0x"),
            ["fix", "src", "main", "rs", "größe", "42", "x"]
        );
        assert_eq!(words("' OR 1=1; -- * ( NEAR"), ["or", "1", "1", "near"]);
        // A letter whose lower case has a mark of its own.
        assert_eq!(words("İ"), ["i"]);
        assert_eq!(words(&"a".repeat(100)), ["a".repeat(MAX_WORD_CHARS)]);
        assert_eq!(words(" \u{0}\n**"), Vec::<String>::new());
    }

    #[test]
    fn long_words_find_those_that_begin_with_them() {
        let one = |text: &str| query_words(text).remove(0);
        assert!(one("fix").finds("fixes") && one("FIX").finds("fix") && !one("fixes").finds("fix"));
        assert!(!one("fi").finds("fix") && one("fi").finds("fi"));
        assert_eq!(query_words("a b A").len(), 2);
    }

    #[test]
    fn hit_is_shown_with_what_is_around_it() {
        let words = query_words("needle other");
        assert_eq!(first_hit("a\n  Needle here", &words).as_deref(), Some("a Needle here"));
        assert_eq!(first_hit("hay", &words), None);
        let long = format!("{} needles {}", "ä".repeat(200), "ö".repeat(200));
        let hit = first_hit(&long, &words).unwrap();
        assert!(hit.starts_with("…ä") && hit.contains(" needles ö") && hit.ends_with("ö…"), "{hit}");
        assert!(hit.len() < 3 * CONTEXT);
        let after = format!("{} needle", "a ".repeat(MAX_TEXT_BYTES / 2));
        assert_eq!(first_hit(&after, &words), None, "it is not indexed");
    }
}
