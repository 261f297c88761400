//! Tables without borders, like those of kubectl and docker.

use anstyle::AnsiColor;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, presets};
use rota_proto::v1::TaskState;

use super::plain;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Paint {
    #[default]
    Plain,
    Good,
    Busy,
    Waiting,
    Bad,
    Faint,
}

impl From<TaskState> for Paint {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Succeeded => Self::Good,
            TaskState::Failed => Self::Bad,
            TaskState::Running | TaskState::Assigned => Self::Busy,
            TaskState::InputRequired | TaskState::Pending | TaskState::Queued => Self::Waiting,
            TaskState::Cancelled | TaskState::Unspecified => Self::Faint,
        }
    }
}

impl Paint {
    /// Returns the text in this style.
    pub fn around(self, text: &str, colored: bool) -> String {
        let color = match self {
            _ if !colored => return text.to_owned(),
            Self::Plain => return text.to_owned(),
            Self::Good => AnsiColor::Green,
            Self::Busy => AnsiColor::Cyan,
            Self::Waiting => AnsiColor::Yellow,
            Self::Bad => AnsiColor::Red,
            Self::Faint => AnsiColor::BrightBlack,
        };
        let style = color.on_default();
        format!("{style}{text}{style:#}")
    }
}

/// Rows below a header.
#[derive(Debug, Clone)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<(String, Paint)>>,
}

impl Table {
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. The text of its cells is sanitized.
    pub fn row<C: Into<Entry>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let fit = |Entry((text, paint)): Entry| (plain(&text), paint);
        self.rows.push(cells.into_iter().map(|cell| fit(cell.into())).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the text without a trailing line break; empty if there are no rows.
    pub fn render(&self, colored: bool) -> String {
        if self.is_empty() {
            return String::new();
        }
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if colored {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(self.header.iter().map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
        for row in &self.rows {
            table.add_row(row.iter().map(|(text, paint)| cell(text, *paint)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        }
        let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Text and style of a cell.
#[derive(Debug)]
pub struct Entry((String, Paint));

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self((text, Paint::Plain))
    }
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Self((text.to_owned(), Paint::Plain))
    }
}

impl From<(String, Paint)> for Entry {
    fn from(cell: (String, Paint)) -> Self {
        Self(cell)
    }
}

fn cell(text: &str, paint: Paint) -> Cell {
    let cell = Cell::new(text);
    match paint {
        // An empty cell with a color would be drawn across the column.
        _ if text.is_empty() => cell,
        Paint::Plain => cell,
        Paint::Good => cell.fg(Color::Green),
        Paint::Busy => cell.fg(Color::Cyan),
        Paint::Waiting => cell.fg(Color::Yellow),
        Paint::Bad => cell.fg(Color::Red),
        Paint::Faint => cell.fg(Color::DarkGrey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", "STATE"]);
        assert_eq!(table.render(false), "");
        table.row([("a".to_owned(), Paint::Plain), ("Running".to_owned(), Paint::Busy)]);
        table.row([("longer".to_owned(), Paint::Plain), (String::new(), Paint::Plain)]);
        assert_eq!(table.render(false), "NAME    STATE\na       Running\nlonger");
        assert!(table.render(true).contains("\u{1b}["));
        table.row(["\u{1b}[31mred", "one\ntwo\tthree"]);
        assert!(table.render(false).ends_with("\nred     one two three"));
    }
}
