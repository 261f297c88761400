//! Output: data on standard output, as tables for humans or JSON and YAML for programs, and messages on standard
//! error. Knows no commands.

mod color;
mod events;
pub mod question;
mod reporter;
mod rows;
mod streamed;
mod table;
pub mod text;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

pub use color::Color;
pub use events::Printer;
pub use question::question;
pub use reporter::Reporter;
pub use rows::{
    agents, capabilities, hits, pull_request, results, target, target_text, tasks, threads, worker_state,
    workers,
};
pub use table::{Paint, Table};
pub use text::{
    age, between, clean, count, duration, elapsed, escaped_json, estimate, failure, first_line, is_hidden,
    limits, micros, moment, money, name, plain, plain_lines, ran, reason, seconds, spent, state, time,
    visible, wait, word,
};

/// Format of data on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Table for humans
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// One JSON document per line
    Jsonl,
}

/// Writer of data to standard output.
#[derive(Debug, Clone)]
pub struct Out {
    pub format: Format,
    pub color: Color,
}

impl Out {
    pub fn new(format: Format, color: Color) -> Self {
        Self { format, color }
    }

    /// Whether the output is a table for humans.
    pub fn is_human(&self) -> bool {
        self.format == Format::Table
    }

    pub fn colored(&self) -> bool {
        self.color.for_stdout()
    }

    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Writes a text of an agent as it is, or without control sequences to a terminal, and ends its last line.
    pub fn text(&self, text: &str) -> io::Result<()> {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match io::stdout().is_terminal() {
            true => self.bytes(format!("{}{end}", clean(text)).as_bytes()),
            false => self.bytes(format!("{text}{end}").as_bytes()),
        }
    }

    pub fn line(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// Writes one value as a JSON or YAML document.
    pub fn value<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        // Converted to a JSON value first, so that YAML has the same mapping.
        let value = serde_json::to_value(value)?;
        let text = match self.format {
            Format::Jsonl => escaped_json(&serde_json::to_string(&value)?),
            Format::Yaml => serde_saphyr::to_string(&value)?.trim_end().to_owned(),
            Format::Table | Format::Json => escaped_json(&serde_json::to_string_pretty(&value)?),
        };
        Ok(self.line(&text)?)
    }

    /// Writes a list as one document under `key`, or as one line per item.
    pub fn list<T: Serialize>(&self, key: &str, items: &[T]) -> anyhow::Result<()> {
        if self.format == Format::Jsonl {
            return items.iter().try_for_each(|item| self.value(item));
        }
        self.value(&serde_json::json!({ key: items }))
    }

    /// Writes several lists as one document, by their keys, or as one line per item.
    pub fn lists(&self, lists: Vec<(&str, Vec<serde_json::Value>)>) -> anyhow::Result<()> {
        if self.format == Format::Jsonl {
            return lists.iter().flat_map(|(_, items)| items).try_for_each(|item| self.value(item));
        }
        let document = lists.into_iter().map(|(key, items)| (key.to_owned(), items.into()));
        self.value(&serde_json::Value::Object(document.collect()))
    }

    pub fn table(&self, table: &Table) -> io::Result<()> {
        let text = table.render(self.colored());
        if text.is_empty() { Ok(()) } else { self.line(&text) }
    }
}
