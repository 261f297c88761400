//! Numbers for people and for programs.

use serde_json::{Value, json};

/// How measured times are spread, in microseconds.
pub(crate) struct Spread(Vec<i64>);

impl Spread {
    pub(crate) fn of(mut all: Vec<i64>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// In milliseconds. The smallest that so many parts of a hundred do not exceed.
    fn at(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map_or(f64::NAN, |micros| *micros as f64 / 1000.0)
    }

    pub(crate) fn json(&self) -> Value {
        json!({"p50": self.at(50), "p99": self.at(99), "max": self.at(100), "count": self.0.len()})
    }
}

/// A row for each, in milliseconds.
pub(crate) fn table(rows: &[(&str, Spread)]) {
    eprintln!("{:34} {:>10} {:>10} {:>10}", "milliseconds", "p50", "p99", "max");
    for (name, spread) in rows {
        eprintln!("{name:34} {:>10.1} {:>10.1} {:>10.1}", spread.at(50), spread.at(99), spread.at(100));
    }
}
