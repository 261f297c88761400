//! A minute or an hour of the history, as the store has it.

use bytes::Bytes;
use prost::Message;
use rota_store::Document;

use super::row::{Key, Row, Rows};
use crate::metrics::OTHER;

/// Agents with a row of their own in a period; further ones share one with those of their namespace, which has the name that they
/// have in the metrics.
const MAX_ROWS: usize = 100;
/// Namespaces with such a row; further ones share one.
const MAX_SHARED: usize = 100;

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

    /// Adds the rows of a reading. Models have so many rows of their own at most, in addition to those of agents.
    pub(super) fn add(&mut self, rows: &Rows, max_models: usize) {
        self.readings += 1;
        for (key, row) in rows {
            self.row(key, max_models).add(row);
        }
    }

    /// Returns the row of a key. Without room, a model is counted as an unknown one of its agent, and an agent with the others
    /// of its namespace.
    fn row(&mut self, (namespace, agent, model): &Key, max_models: usize) -> &mut Row {
        let agents = self.rows.iter().filter(|row| row.model.is_empty()).count();
        let models = self.rows.len() - agents;
        let mut key = [namespace.as_str(), agent.as_str(), model.as_str()];
        if !model.is_empty() && models >= max_models && self.position(key).is_none() {
            key[2] = "";
        }
        if key[2].is_empty() && agents >= MAX_ROWS && self.position(key).is_none() {
            key = [namespace, OTHER, ""];
        }
        if key[1] == OTHER && agents >= MAX_ROWS + MAX_SHARED && self.position(key).is_none() {
            key = [OTHER, OTHER, ""];
        }
        let at = self.position(key).unwrap_or_else(|| {
            let [namespace, agent, model] = key.map(str::to_owned);
            self.rows.push(Row::of((namespace, agent, model)));
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    fn position(&self, key: [&str; 3]) -> Option<usize> {
        self.rows.iter().position(|row| [&row.namespace, &row.agent, &row.model] == key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::HOURS;
    use super::super::row::COST;
    use super::*;

    /// Returns the sum of a counter over the rows of an agent.
    fn sum(period: &Period, agent: &str) -> u64 {
        let rows = period.rows.iter().filter(|row| row.agent == agent);
        rows.map(|row| row.counter(COST)).sum()
    }

    #[test]
    fn agents_beyond_the_limit_share_a_row() {
        let mut period = Period::new(0);
        for number in 0..3 * MAX_ROWS {
            let key = ("n".to_owned(), format!("a{number}"), String::new());
            let row = Row { max_queued: 7, ..Row::of(key.clone()) };
            period.add(&Rows::from([(key, row)]), 0);
        }
        assert_eq!(period.rows.len(), MAX_ROWS + 1);
        assert_eq!(period.rows[MAX_ROWS].agent, OTHER);
        assert_eq!(period.rows[MAX_ROWS].max_queued, 7);
    }

    #[test]
    fn agents_beyond_the_limit_count_for_their_namespace() {
        let mut period = Period::new(0);
        for number in 0..3 * MAX_ROWS {
            for namespace in ["one", "two"] {
                let key = (namespace.to_owned(), format!("a{number}"), String::new());
                let row = Row { counters: vec![0, 0, 0, 0, 1], ..Row::of(key.clone()) };
                period.add(&Rows::from([(key, row)]), 0);
            }
        }
        assert_eq!(period.rows.len(), MAX_ROWS + 2);
        for namespace in ["one", "two"] {
            let rows = period.rows.iter().filter(|row| row.namespace == namespace);
            assert_eq!(rows.map(|row| row.counter(COST)).sum::<u64>(), 300);
        }
    }

    #[test]
    fn rows_of_many_namespaces_are_bounded() {
        let mut period = Period::new(0);
        for number in 0..3 * (MAX_ROWS + MAX_SHARED) {
            let key = (format!("n{number}"), "a".to_owned(), String::new());
            let row = Row { counters: vec![0, 0, 0, 0, 1], ..Row::of(key.clone()) };
            period.add(&Rows::from([(key, row)]), 0);
        }
        assert_eq!(period.rows.len(), MAX_ROWS + MAX_SHARED + 1);
        assert_eq!(period.rows.iter().map(|row| row.counter(COST)).sum::<u64>(), 600);
    }

    #[test]
    fn models_beyond_the_limit_count_for_their_agent() {
        for max_models in [0, 3] {
            let mut period = Period::new(0);
            for model in ["one", "two"] {
                for agent in ["a", "b", "c"] {
                    let key = ("n".to_owned(), agent.to_owned(), model.to_owned());
                    let row = Row { counters: vec![0, 0, 0, 0, 5], ..Row::of(key.clone()) };
                    period.add(&Rows::from([(key, row)]), max_models);
                }
            }
            assert_eq!(period.rows.iter().filter(|row| !row.model.is_empty()).count(), max_models);
            assert_eq!(["a", "b", "c"].map(|agent| sum(&period, agent)), [10; 3]);
        }
    }

    #[test]
    fn hour_of_many_models_and_agents_is_bounded() {
        let mut period = Period::new(0);
        for agent in 0..2 * MAX_ROWS {
            for model in 0..5 {
                // As long as the names of namespaces, agents and models are at most.
                let key = ("n".repeat(63), format!("{agent:063}"), format!("{model:064}"));
                let row = Row { counters: vec![0, 0, 0, 0, 1], ..Row::of(key.clone()) };
                period.add(&Rows::from([(key, row)]), HOURS.models);
            }
        }
        assert_eq!(period.rows.len(), HOURS.models + MAX_ROWS + 1);
        assert_eq!(period.rows.iter().map(|row| row.counter(COST)).sum::<u64>(), 10 * 100);
        let size = period.encode().len();
        assert!(size < 100_000, "{size} bytes");
    }
}
