//! Sums of days that have ended, which change no more. They are kept in memory, so that no call decodes the hours of a month again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DAY;
use super::period::Period;
use super::row::{self, Row, Rows};

/// Rows of all sums, of some 450 bytes at most. Days of full hours with the same names have 9,000.
const MAX_ROWS: usize = 20_000;
const MAX_DAYS: usize = 31;

/// Sums by the begin of their day.
#[derive(Debug, Default)]
pub(super) struct Days(BTreeMap<i64, Arc<Period>>);

impl Days {
    pub(super) fn get(&self, start: i64) -> Option<Arc<Period>> {
        self.0.get(&start).cloned()
    }

    /// Keeps the sum of a day. Without room, the newest days stay.
    pub(super) fn keep(&mut self, sum: Arc<Period>) {
        self.0.insert(sum.start, sum);
        while self.0.len() > MAX_DAYS || self.rows() > MAX_ROWS {
            self.0.pop_first();
        }
    }

    /// Forgets the days that have not ended at a time: where the clock is set back, their hours change.
    pub(super) fn forget_open(&mut self, at: i64) {
        self.0.retain(|start, _| start + DAY <= at);
    }

    fn rows(&self) -> usize {
        self.0.values().map(|sum| sum.rows.len()).sum()
    }
}

/// Adds an hour to the rows of its day, as far as spending counts it.
pub(super) fn add(rows: &mut Rows, hour: Period) {
    for mut row in hour.rows {
        row.counters.truncate(row::OUTPUT + 1);
        if row.counters.iter().any(|count| *count != 0) {
            let spent = Row { counters: row.counters, ..Row::default() };
            let key = (row.namespace, row.agent, row.model);
            rows.entry(key).or_default().add(&spent);
        }
    }
}

/// Returns the rows of a day as the period that begins with it.
pub(super) fn sum(start: i64, rows: Rows) -> Period {
    let rows = rows.into_iter().map(|(key, sum)| Row { counters: sum.counters, ..Row::of(key) });
    Period { rows: rows.collect(), ..Period::new(start) }
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::super::spending::Spending;
    use super::*;

    fn row(agent: &str, model: &str, cost: u64) -> Row {
        let counters = vec![9, 1, 2, 9, cost, 2 * cost, 3 * cost, 9, 9];
        let key = ("n".to_owned(), agent.to_owned(), model.to_owned());
        Row { counters, gauges: vec![9], max_queued: 9, ..Row::of(key) }
    }

    #[test]
    fn sum_of_a_day_counts_as_its_hours() {
        let idle = Row { counters: vec![0; 9], ..row("idle", "", 0) };
        let hours = [
            Period { rows: vec![row("a", "", 0), row("a", "large", 5), idle], ..Period::new(DAY) },
            Period { rows: vec![row("b", "", 1), row("a", "large", 7)], ..Period::new(DAY + 3600) },
        ];
        let query = Query { namespace: None, agent: None, start: 0, end: 2 * DAY };
        let (mut by_hour, mut by_day) = (Spending::default(), Spending::default());
        let mut rows = Rows::new();
        for hour in hours {
            by_hour.add(&query, &hour);
            add(&mut rows, hour);
        }
        let day = sum(DAY, rows);
        assert_eq!(day.rows.len(), 3);
        by_day.add(&query, &day);
        assert_eq!(by_day.into_wire(), by_hour.into_wire());
    }

    #[test]
    fn sums_are_bounded_and_the_newest_stay() {
        let mut days = Days::default();
        let sum =
            |day: i64, rows| Arc::new(Period { rows: vec![Row::default(); rows], ..Period::new(day * DAY) });
        for day in 0..100 {
            days.keep(sum(day, 1));
        }
        assert_eq!(days.0.len(), MAX_DAYS);
        days.keep(sum(100, MAX_ROWS - 1));
        assert_eq!(days.0.keys().map(|start| start / DAY).collect::<Vec<_>>(), [99, 100]);
        days.forget_open(101 * DAY - 1);
        assert!(days.get(100 * DAY).is_none() && days.get(99 * DAY).is_some());
        days.keep(sum(100, MAX_ROWS + 1));
        assert!(days.0.is_empty());
    }
}
