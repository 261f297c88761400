//! Standard output is data: tables for eyes, JSON and YAML for programs. Standard error is talk.
//! Knows no commands.

mod color;
mod events;
mod rows;
mod table;
mod talk;
mod text;

use std::io::{self, Write};

use serde::Serialize;

pub use color::Color;
pub use events::Printer;
pub use rows::{agents, capabilities, results, target, tasks, worker_state, workers};
pub use table::{Paint, Table};
pub use talk::Talk;
pub use text::{
    age, between, clean, count, duration, elapsed, failure, first_line, micros, moment, money, name, plain,
    plain_lines, ran, reason, seconds, state, time, wait, word,
};

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For eyes
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// A JSON document a line
    Jsonl,
}

/// Standard output.
#[derive(Debug, Clone)]
pub struct Out {
    pub format: Format,
    pub color: Color,
}

impl Out {
    pub fn new(format: Format, color: Color) -> Self {
        Self { format, color }
    }

    /// Whether a person reads this.
    pub fn for_eyes(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether to colour it.
    pub fn colored(&self) -> bool {
        self.color.for_stdout()
    }

    /// Writes bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Writes a line.
    pub fn line(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// Writes one value for programs.
    pub fn value<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        // By way of a JSON value, so that YAML shows the very same mapping.
        let value = serde_json::to_value(value)?;
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(&value)?,
            Format::Yaml => serde_saphyr::to_string(&value)?.trim_end().to_owned(),
            Format::Table | Format::Json => serde_json::to_string_pretty(&value)?,
        };
        Ok(self.line(&text)?)
    }

    /// Writes a list for programs: as one document under `key`, or a line each.
    pub fn list<T: Serialize>(&self, key: &str, items: &[T]) -> anyhow::Result<()> {
        if self.format == Format::Jsonl {
            return items.iter().try_for_each(|item| self.value(item));
        }
        self.value(&serde_json::json!({ key: items }))
    }

    /// Writes a table.
    pub fn table(&self, table: &Table) -> io::Result<()> {
        let text = table.render(self.colored());
        if text.is_empty() { Ok(()) } else { self.line(&text) }
    }
}
