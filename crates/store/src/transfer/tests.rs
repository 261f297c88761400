//! What is written is read again; what was changed, cut off or exchanged is refused.

use std::io::Cursor;

use super::*;

#[derive(Default)]
struct Rows(Vec<(&'static str, Vec<Value>)>);

impl RowSink for Rows {
    fn insert(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), Error> {
        self.0.extend(rows.into_iter().map(|row| (table.name, row)));
        Ok(())
    }
}

/// Returns a row with a value of each kind, and nulls in every second row.
fn row(table: &Table, number: i64) -> Vec<Value> {
    let value = |(index, (_, kind)): (usize, &(&str, Kind))| match kind {
        _ if index >= table.keys && number % 2 == 1 => Value::Null,
        Kind::Int => Value::Int(number - 3),
        Kind::Text => Value::Text(format!("text \"{number}\"\n")),
        Kind::Uuid => Value::Uuid(Uuid::from_u128(u128::try_from(number).unwrap() << 90)),
        Kind::Bytes => Value::Bytes(vec![u8::try_from(number).unwrap(); 3]),
        Kind::Bool => Value::Bool(true),
    };
    table.columns.iter().enumerate().map(value).collect()
}

type Inserted = Vec<(&'static str, Vec<Value>)>;

fn export() -> (Vec<u8>, Inserted, Head) {
    let head = Head::new(Uuid::from_u128(7), 12, 3, Some(5), Some(&[1, 2]));
    let mut out = Vec::new();
    let mut exporter = Exporter::begin(&mut out, head.clone()).unwrap();
    let mut rows = Vec::new();
    for table in TABLES {
        for number in 0..4 {
            let row = row(table, number);
            exporter.row(table, &row).unwrap();
            rows.push((table.name, row));
        }
    }
    exporter.end().unwrap();
    (out, rows, head)
}

fn import(text: &[u8]) -> Result<(Head, Rows), Error> {
    let mut from = Cursor::new(text);
    let (importer, head) = Importer::begin(&mut from)?;
    let mut rows = Rows::default();
    importer.copy(&mut rows)?;
    Ok((head, rows))
}

#[test]
fn export_is_read_as_it_was_written() {
    let (text, rows, head) = export();
    let (found, read) = import(&text).unwrap();
    assert_eq!((found.away().unwrap(), found), (Some(vec![1, 2]), head));
    assert_eq!(read.0, rows);
}

#[test]
fn damaged_exports_are_refused() {
    let (text, ..) = export();
    let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let without = |index: usize| [&lines[..index], &lines[index + 1..]].concat().concat();
    for index in 0..lines.len() {
        assert!(import(&without(index)).is_err(), "without line {index}");
        let twice = [&lines[..=index], &lines[index..]].concat().concat();
        assert!(import(&twice).is_err(), "line {index} twice");
    }
    for cut in (0..text.len()).step_by(37) {
        assert!(import(&text[..cut]).is_err(), "cut off at {cut}");
        let mut changed = text.clone();
        changed[cut] ^= 1;
        assert!(import(&changed).is_err(), "changed at {cut}");
    }
    let swapped = [&lines[..2], &lines[3..4], &lines[2..3], &lines[4..]].concat().concat();
    assert!(import(&swapped).is_err());
}

#[test]
fn format_of_another_version_is_refused() {
    let (text, ..) = export();
    let other = String::from_utf8(text).unwrap().replacen("\"format\":1", "\"format\":2", 1);
    let error = import(other.as_bytes()).err().unwrap();
    assert!(error.to_string().contains("another version"), "{error}");
}
