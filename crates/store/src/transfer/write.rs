//! Writing of an export, row by row.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::SerializeMap;
use sha2::{Digest, Sha256};

use super::tables::{Table, Value};
use super::{Counts, End, FirstLine, Head, LastLine, encode};
use crate::Error;

/// An export that is being written.
pub struct Exporter<'a> {
    to: &'a mut dyn Write,
    hash: Sha256,
    rows: Counts,
    line: Vec<u8>,
}

impl std::fmt::Debug for Exporter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// A row as a line.
struct Row<'a>(&'a Table, &'a [Value]);

impl Serialize for Row<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("table", self.0.name)?;
        for ((column, _), value) in self.0.columns.iter().zip(self.1) {
            match value {
                Value::Null => {}
                Value::Int(number) => line.serialize_entry(column, number)?,
                Value::Text(text) => line.serialize_entry(column, text)?,
                Value::Uuid(id) => line.serialize_entry(column, id)?,
                Value::Bytes(bytes) => line.serialize_entry(column, &encode(bytes))?,
                Value::Bool(bit) => line.serialize_entry(column, bit)?,
            }
        }
        line.end()
    }
}

impl<'a> Exporter<'a> {
    /// Writes the first line. Refuses a store without records, such as one that a mistyped name has just made.
    pub fn begin(to: &'a mut dyn Write, head: Head) -> Result<Self, Error> {
        if head.revision == 0 {
            return Err(Error::Unavailable {
                message: "the store has no records".to_owned(),
                hint: "check the name of the data directory or database",
            });
        }
        let mut export = Self { to, hash: Sha256::new(), rows: Counts::new(), line: Vec::new() };
        export.write(&FirstLine { rota_export: head })?;
        Ok(export)
    }

    /// Writes a row, with a value for each column of its table.
    pub fn row(&mut self, table: &Table, row: &[Value]) -> Result<(), Error> {
        *self.rows.entry(table.name.to_owned()).or_default() += 1;
        self.write(&Row(table, row))
    }

    /// Writes the last line. Without it, an export is not complete.
    pub fn end(mut self) -> Result<Counts, Error> {
        let sha256 = hex::encode(self.hash.finalize_reset());
        self.write(&LastLine { end: End { rows: self.rows.clone(), sha256 } })?;
        self.to.flush().map_err(|error| failed(&error))?;
        Ok(self.rows)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), Error> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line).map_err(|error| Error::Corrupt(error.to_string()))?;
        self.line.push(b'\n');
        self.hash.update(&self.line);
        self.to.write_all(&self.line).map_err(|error| failed(&error))
    }
}

fn failed(error: &io::Error) -> Error {
    Error::Unavailable {
        message: format!("failed to write the export: {error}"),
        hint: "check the space and the permissions of its directory",
    }
}
