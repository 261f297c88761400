//! Sizes of logs, which bound how many tasks a commit removes.

use rota_core::TaskKey;

/// Tasks to remove, as far as a bound of their logs allows: the page ends with the one that exceeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsPage {
    pub tasks: Vec<TaskKey>,
    pub bound: LogSize,
}

/// Size of the logs of some tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSize {
    pub rows: u64,
    pub bytes: u64,
}

impl LogSize {
    pub fn add(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Whether the rows or the bytes are more than a bound allows.
    pub fn exceeds(&self, bound: Self) -> bool {
        self.rows > bound.rows || self.bytes > bound.bytes
    }
}
