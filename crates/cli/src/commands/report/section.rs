//! Sections of a report as text or Markdown. Does not know their contents.

use crate::output::{Table, plain};

/// Table below a heading.
#[derive(Debug)]
pub struct Section {
    pub title: &'static str,
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Section {
    pub fn new(title: &'static str, header: &[&'static str], rows: Vec<Vec<String>>) -> Self {
        Self { title, header: header.to_vec(), rows }
    }
}

/// Renders a title and all sections that have rows.
pub fn page(title: &str, sections: &[Section], markdown: bool, colored: bool) -> String {
    let mut page = if markdown { format!("# {}", escape(title)) } else { plain(title) };
    for section in sections.iter().filter(|section| !section.rows.is_empty()) {
        let table = if markdown { as_markdown(section) } else { as_text(section, colored) };
        let mark = if markdown { "## " } else { "" };
        let gap = if markdown { "\n\n" } else { "\n" };
        page.push_str(&format!("\n\n{mark}{}{gap}{table}", section.title));
    }
    page
}

fn as_text(section: &Section, colored: bool) -> String {
    let mut table = Table::new(&section.header);
    for row in &section.rows {
        table.row(row.iter().map(String::as_str));
    }
    let text = table.render(colored);
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn as_markdown(section: &Section) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let heads: Vec<_> = section.header.iter().map(|head| (*head).to_lowercase()).collect();
    let mut lines = vec![line(&heads), line(&vec!["---".to_owned(); heads.len()])];
    lines.extend(section.rows.iter().map(|row| {
        let cells: Vec<_> = row.iter().map(|cell| escape(cell)).collect();
        line(&cells)
    }));
    lines.join("\n")
}

/// Escapes untrusted text for a Markdown cell.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for next in plain(text).chars() {
        match next {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' => escaped.extend(['\\', next]),
            _ => escaped.push(next),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_render_as_text_and_markdown() {
        let rows = vec![vec!["a|b".to_owned(), "<x>\nnext\u{1b}[2J".to_owned()]];
        let sections =
            [Section::new("One", &["NAME", "WHAT"], rows), Section::new("Empty", &["X"], Vec::new())];
        assert_eq!(
            page("All #1", &sections, true, false),
            "# All \\#1\n\n## One\n\n| name | what |\n| --- | --- |\n| a\\|b | \\<x\\> next |"
        );
        let text = page("All", &sections, false, false);
        assert!(text.starts_with("All\n\nOne\n  NAME  WHAT\n  a|b"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("Empty"), "{text}");
    }
}
