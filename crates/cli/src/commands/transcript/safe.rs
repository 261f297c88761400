//! Texts of agents, made harmless: for terminals, and within Markdown.

use std::collections::BTreeSet;

use pulldown_cmark::{Event, Options, Parser, Tag};

use crate::output::is_hidden;

/// Extensions of Markdown that forges have.
const OF_FORGES: Options = Options::ENABLE_TABLES
    .union(Options::ENABLE_FOOTNOTES)
    .union(Options::ENABLE_STRIKETHROUGH)
    .union(Options::ENABLE_TASKLISTS)
    .union(Options::ENABLE_GFM);
/// Rounds in which a quotation is to become harmless.
const MAX_ROUNDS: usize = 8;

/// Removes control characters, except line breaks and tabs, and those that change the direction of text.
pub(super) fn text(text: &str) -> String {
    text.chars().filter(|next| matches!(next, '\n' | '\t') || !is_hidden(*next)).collect()
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
    let quote = |text: &str| {
        let lines = text.lines().map(|line| format!("> {line}").trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    };
    // The width of a tab depends on what is before it.
    let mut all = quote(&text(given).replace('\t', "    "));
    // What was within HTML is Markdown once that is escaped.
    for _ in 0..MAX_ROUNDS {
        let found = loading(&all);
        if found.is_empty() {
            return all;
        }
        for at in found.into_iter().rev() {
            all.insert(at, '\\');
        }
    }
    quote(&fenced(given))
}

/// Finds where HTML and images begin, for programs that know CommonMark alone, and for those that know tables and other extensions.
fn loading(text: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for options in [Options::empty(), OF_FORGES, Options::all()] {
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            match event {
                Event::Html(_) | Event::InlineHtml(_) => {
                    let inner = text.get(range.clone()).unwrap_or_default();
                    found.extend(inner.match_indices('<').map(|(at, _)| range.start + at));
                }
                Event::Start(Tag::Image { .. }) => drop(found.insert(range.start)),
                _ => {}
            }
        }
    }
    found
}
