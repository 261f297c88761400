//! Texts of agents, made harmless: for terminals, and within Markdown.

use pulldown_cmark::{Event, Parser, Tag};

/// Removes control characters, except line breaks and tabs, and those that change the direction of text.
pub(super) fn text(text: &str) -> String {
    let harmless = |next: &char| {
        matches!(next, '\n' | '\t')
            || !next.is_control() && !matches!(next, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(harmless).collect()
}

/// Returns a text as one line.
pub(super) fn line(given: &str) -> String {
    text(given).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a line as plain text of Markdown.
pub(super) fn plain(given: &str) -> String {
    let escaped = |next: char| match next {
        '<' => "&lt;".to_owned(),
        '&' => "&amp;".to_owned(),
        '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '>' | '|' | '!' | '~' => format!("\\{next}"),
        other => other.to_string(),
    };
    line(given).chars().map(escaped).collect()
}

/// Returns a text as a block of code that nothing in it ends.
pub(super) fn fenced(given: &str) -> String {
    let text = text(given);
    let longest = text.split(|next| next != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}text\n{}\n{fence}", text.trim_end_matches('\n'))
}

/// Returns Markdown of an agent as a quotation: no block of it continues behind its end, and it has neither HTML nor images, which would
/// load something.
pub(super) fn quoted(given: &str) -> String {
    let text = text(given);
    let mut escapes = Vec::new();
    for (event, range) in Parser::new(&text).into_offset_iter() {
        match event {
            Event::Html(_) | Event::InlineHtml(_) => {
                let inner = text.get(range.clone()).unwrap_or_default();
                escapes.extend(inner.match_indices('<').map(|(at, _)| range.start + at));
            }
            Event::Start(Tag::Image { .. }) => escapes.push(range.start),
            _ => {}
        }
    }
    escapes.sort_unstable();
    escapes.dedup();
    let mut safe = String::with_capacity(text.len() + escapes.len());
    let mut from = 0;
    for at in escapes {
        safe.push_str(text.get(from..at).unwrap_or_default());
        safe.push('\\');
        from = at;
    }
    safe.push_str(text.get(from..).unwrap_or_default());
    safe.lines().map(|line| format!("> {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
