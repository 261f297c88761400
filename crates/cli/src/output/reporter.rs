//! Messages to the user on standard error. A closed standard error is ignored.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};

use super::{Color, plain_lines};

/// Writer of messages to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Reporter {
    colored: bool,
}

impl Reporter {
    pub fn new(color: Color) -> Self {
        Self { colored: color.for_stderr() }
    }

    pub fn colored(&self) -> bool {
        self.colored
    }

    pub fn is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    pub fn line(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    pub fn bytes(&self, bytes: &[u8]) {
        let _ = io::stderr().lock().write_all(bytes);
    }

    pub fn error(&self, text: &str) {
        self.marked("error", AnsiColor::Red, text);
    }

    pub fn cause(&self, text: &str) {
        self.marked("cause", AnsiColor::Yellow, text);
    }

    pub fn hint(&self, text: &str) {
        self.marked("hint", AnsiColor::Cyan, text);
    }

    pub fn warn(&self, text: &str) {
        self.marked("warning", AnsiColor::Yellow, text);
    }

    /// Writes a message under a label of its own.
    pub fn note(&self, mark: &str, text: &str) {
        self.marked(mark, AnsiColor::Blue, text);
    }

    /// Sanitizes the text, much of which comes from agents and servers.
    fn marked(&self, mark: &str, color: AnsiColor, text: &str) {
        let style = if self.colored { color.on_default().bold() } else { Style::new() };
        self.line(&format!("{style}{mark}:{style:#} {}", plain_lines(text)));
    }
}
