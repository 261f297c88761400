//! Reading of an export, and its insertion in batches. Nothing counts before the last line was found to fit the others.

use std::io::{BufRead, Read};

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::tables::{Kind, Table, Value, find};
use super::{Counts, FORMAT, FirstLine, Head, LastLine, damaged, decode};
use crate::Error;

/// Longest line, in bytes: more than any row has.
const MAX_LINE: u64 = 128 << 20;
/// Bounds of the rows that are inserted at a time.
const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// What rows are inserted into, in a transaction of its own.
pub trait RowSink {
    fn insert(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), Error>;
}

/// An export that is being read.
pub struct Importer<'a> {
    from: &'a mut dyn BufRead,
    hash: Sha256,
    rows: Counts,
    /// Place of the last row's table.
    place: usize,
    number: u64,
    line: Vec<u8>,
}

impl std::fmt::Debug for Importer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer").field("line", &self.number).finish_non_exhaustive()
    }
}

impl<'a> Importer<'a> {
    /// Reads the first line, which identifies the store.
    pub fn begin(from: &'a mut dyn BufRead) -> Result<(Self, Head), Error> {
        let (rows, line) = (Counts::new(), Vec::new());
        let mut import = Self { from, hash: Sha256::new(), rows, place: 0, number: 0, line };
        if !import.read()? {
            return Err(damaged("it is empty"));
        }
        let first: Map<String, Json> =
            serde_json::from_slice(&import.line).map_err(|_| damaged("it is no export of Rota"))?;
        let format = first.get("rota_export").and_then(|head| head.get("format")).and_then(Json::as_u64);
        if format.is_some_and(|format| format != u64::from(FORMAT)) {
            return Err(Error::Unavailable {
                message: "the export has the format of another version of Rota".to_owned(),
                hint: "import it with the version that has made it, then upgrade",
            });
        }
        let FirstLine { rota_export: head } = serde_json::from_slice(&import.line).map_err(damaged)?;
        import.hash.update(&import.line);
        Ok((import, head))
    }

    /// Inserts all rows. Fails unless the last line fits what was read.
    pub fn copy(mut self, to: &mut dyn RowSink) -> Result<Counts, Error> {
        let mut batch: Vec<Vec<Value>> = Vec::new();
        let (mut of, mut bytes) = (None, 0);
        while let Some((table, row)) = self.next()? {
            let is_full = batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES;
            if let Some(known) = of.filter(|known| is_full || *known != table) {
                to.insert(known, std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes += row.iter().map(Value::size).sum::<usize>();
            batch.push(row);
            of = Some(table);
        }
        if let Some(known) = of {
            to.insert(known, batch)?;
        }
        Ok(self.rows)
    }

    fn next(&mut self) -> Result<Option<(&'static Table, Vec<Value>)>, Error> {
        if !self.read()? {
            return Err(damaged("its last line is missing"));
        }
        let at = |what: &str| damaged(format!("line {}: {what}", self.number));
        let mut line: Map<String, Json> =
            serde_json::from_slice(&self.line).map_err(|error| at(&error.to_string()))?;
        if line.contains_key("end") {
            self.check_end()?;
            return Ok(None);
        }
        let name = line.remove("table");
        let found = name.as_ref().and_then(Json::as_str).and_then(find);
        let (place, table) = found.ok_or_else(|| at("it names no known table"))?;
        if place < self.place {
            return Err(at("its table comes too late"));
        }
        let row = table.columns.iter().map(|(column, kind)| {
            value(line.remove(*column), *kind).ok_or_else(|| at(&format!("{column} is not valid")))
        });
        let row = row.collect::<Result<Vec<_>, _>>()?;
        if let Some(column) = line.keys().next() {
            return Err(at(&format!("{column} is not known")));
        }
        self.place = place;
        self.hash.update(&self.line);
        *self.rows.entry(table.name.to_owned()).or_default() += 1;
        Ok(Some((table, row)))
    }

    fn check_end(&mut self) -> Result<(), Error> {
        let LastLine { end } = serde_json::from_slice(&self.line).map_err(damaged)?;
        if end.sha256 != hex::encode(self.hash.finalize_reset()) {
            return Err(damaged("its checksum does not fit"));
        }
        if end.rows != self.rows {
            return Err(damaged("its numbers of rows do not fit"));
        }
        if self.read()? { Err(damaged("something follows its last line")) } else { Ok(()) }
    }

    /// Reads a line, if there is one.
    fn read(&mut self) -> Result<bool, Error> {
        self.line.clear();
        self.number += 1;
        let read = Read::take(&mut *self.from, MAX_LINE).read_until(b'\n', &mut self.line);
        let read = read.map_err(damaged)?;
        if read > 0 && self.line.last() != Some(&b'\n') {
            return Err(damaged(format!("line {} is cut off, or too long", self.number)));
        }
        Ok(read > 0)
    }
}

/// Converts a value; one that is missing is null.
fn value(json: Option<Json>, kind: Kind) -> Option<Value> {
    Some(match (kind, json) {
        (_, None) => Value::Null,
        (Kind::Int, Some(Json::Number(number))) => Value::Int(number.as_i64()?),
        (Kind::Text, Some(Json::String(text))) => Value::Text(text),
        (Kind::Uuid, Some(Json::String(text))) => Value::Uuid(text.parse().ok()?),
        (Kind::Bytes, Some(Json::String(text))) => Value::Bytes(decode(&text)?),
        (Kind::Bool, Some(Json::Bool(bit))) => Value::Bool(bit),
        _ => return None,
    })
}
