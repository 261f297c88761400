//! A minute or an hour of the history, as the store has it.

use bytes::Bytes;
use prost::Message;
use rota_store::Document;

use super::row::{Key, Row, Rows};

/// Agents with a row of their own in a period; further ones share one.
const MAX_ROWS: usize = 100;
/// Name of the row that the others share, as in the metrics.
const OTHER: &str = "_other";

#[derive(Clone, PartialEq, Message)]
pub(super) struct Period {
    /// Begin of the period, in seconds since 1970.
    #[prost(int64, tag = "1")]
    pub(super) start: i64,
    /// Number of readings of the gauges.
    #[prost(uint32, tag = "2")]
    pub(super) readings: u32,
    #[prost(message, repeated, tag = "3")]
    pub(super) rows: Vec<Row>,
}

impl Period {
    pub(super) fn new(start: i64) -> Self {
        Self { start, ..Self::default() }
    }

    /// Returns the period of a document; `None` if it is damaged.
    pub(super) fn decode(document: &Document) -> Option<Self> {
        let decoded = <Self as Message>::decode(&document.payload[..]);
        let name = &document.key.name;
        decoded
            .inspect_err(
                |error| tracing::warn!(name, %error, "a part of the history of the metrics is damaged"),
            )
            .ok()
    }

    pub(super) fn encode(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds the rows of a reading.
    pub(super) fn add(&mut self, rows: &Rows) {
        self.readings += 1;
        for (key, row) in rows {
            self.row(key).add(row);
        }
    }

    fn row(&mut self, key: &Key) -> &mut Row {
        let at = |rows: &[Row], (namespace, agent): &Key| {
            rows.iter().position(|row| row.namespace == *namespace && row.agent == *agent)
        };
        let other = (OTHER.to_owned(), OTHER.to_owned());
        let key = if self.rows.len() < MAX_ROWS || at(&self.rows, key).is_some() { key } else { &other };
        let at = at(&self.rows, key).unwrap_or_else(|| {
            self.rows.push(Row::of(key.clone()));
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_beyond_the_limit_share_a_row() {
        let mut period = Period::new(0);
        for number in 0..3 * MAX_ROWS {
            let key = ("n".to_owned(), format!("a{number}"));
            let row = Row { max_queued: 7, ..Row::of(key.clone()) };
            period.add(&Rows::from([(key, row)]));
        }
        assert_eq!(period.rows.len(), MAX_ROWS + 1);
        assert_eq!(period.rows[MAX_ROWS].agent, OTHER);
        assert_eq!(period.rows[MAX_ROWS].max_queued, 7);
    }
}
