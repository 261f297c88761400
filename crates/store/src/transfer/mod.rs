//! Export of a store to lines of JSON, and import into an empty one, of whatever kind: the first line identifies the store, each
//! further line is a row, and the last one has the numbers of rows and a checksum of everything before it.
//!
//! Knows no database: a store reads its rows in the order of [`TABLES`], and inserts those that it is given.

mod read;
mod tables;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use read::{Importer, RowSink};
pub use tables::{Kind, TABLES, Table, Value};
pub use write::Exporter;

use crate::Error;

/// Version of the format. Another one is refused.
const FORMAT: u32 = 1;

/// What identifies a store, and its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub format: u32,
    /// Version of Rota that has made the export.
    pub software: String,
    pub store: Uuid,
    pub revision: u64,
    pub last_route: u32,
    /// Time of the last write, in microseconds.
    pub written_at: Option<i64>,
    /// Times that queue timeouts do not count, as they are stored, in Base64.
    pub away: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    rota_export: Head,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    end: End,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    rows: BTreeMap<String, u64>,
    /// Of all lines before, in hexadecimal.
    sha256: String,
}

/// Numbers of rows that were exported or imported, by table; those without rows are missing.
pub type Counts = BTreeMap<String, u64>;

impl Head {
    pub fn new(
        store: Uuid,
        revision: u64,
        last_route: u32,
        written_at: Option<i64>,
        away: Option<&[u8]>,
    ) -> Self {
        let software = env!("CARGO_PKG_VERSION").to_owned();
        let away = away.map(encode);
        Self { format: FORMAT, software, store, revision, last_route, written_at, away }
    }

    /// Returns the stored times that queue timeouts do not count.
    pub fn away(&self) -> Result<Option<Vec<u8>>, Error> {
        self.away.as_deref().map(|text| decode(text).ok_or_else(|| damaged("away"))).transpose()
    }
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::Unavailable {
        message: format!("the export is damaged or not complete: {what}"),
        hint: "make the export again, or copy it again",
    }
}

/// The error of a store that has records already.
pub fn not_empty() -> Error {
    Error::Unavailable {
        message: "the store is not empty".to_owned(),
        hint: "import into a new data directory, or a new database",
    }
}
