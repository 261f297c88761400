//! Metrics of a benchmark: where a report has them, and tables of them. Works on JSON, so that reports of other builds are
//! read in the same way.

use comfy_table::{ColumnConstraint, ContentArrangement, presets};
use serde_json::Value;

/// Measured value of each round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    source: Source,
}

/// Place of a metric in a round, as a JSON pointer.
#[derive(Debug, Clone, Copy)]
enum Source {
    Field(&'static str, f64),
    Difference(&'static str, &'static str),
}

impl Metric {
    pub(crate) const fn new(name: &'static str, unit: &'static str, pointer: &'static str) -> Self {
        Self { name, unit, source: Source::Field(pointer, 1.0) }
    }

    /// Multiplies the value of the report, to convert its unit.
    pub(crate) const fn scaled(self, factor: f64) -> Self {
        match self.source {
            Source::Field(pointer, _) => Self { source: Source::Field(pointer, factor), ..self },
            Source::Difference(..) => self,
        }
    }

    pub(crate) const fn difference(
        name: &'static str,
        unit: &'static str,
        from: &'static str,
        subtracted: &'static str,
    ) -> Self {
        Self { name, unit, source: Source::Difference(from, subtracted) }
    }

    /// Returns the values of all rounds that have one.
    pub(crate) fn values(&self, report: &Value) -> Vec<f64> {
        let rounds = report["rounds"].as_array().map(Vec::as_slice).unwrap_or_default();
        rounds.iter().filter_map(|round| self.of(round)).collect()
    }

    fn of(&self, round: &Value) -> Option<f64> {
        let at = |pointer| round.pointer(pointer).and_then(Value::as_f64);
        match self.source {
            Source::Field(pointer, factor) => Some(at(pointer)? * factor),
            Source::Difference(from, subtracted) => Some(at(from)? - at(subtracted)?),
        }
    }
}

/// Returns a quantile of unordered values, interpolated; NaN without any.
pub(crate) fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "there are few values")]
    let position = sorted.len().saturating_sub(1) as f64 * at;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of few values")]
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => low + (high - low) * position.fract(),
        _ => f64::NAN,
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Table of metrics, for humans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates the table of a report. Metrics that it lacks have no row.
    pub(crate) fn of(metrics: &[Metric], report: &Value) -> Self {
        let row = |metric: &Metric| {
            let values = metric.values(report);
            let cells = [0.0, 0.5, 1.0].map(|at| number(quantile(&values, at)));
            let [min, median, max] = cells;
            (!values.is_empty())
                .then(|| vec![metric.name.to_owned(), min, median, max, metric.unit.to_owned()])
        };
        Self {
            header: vec!["METRIC", "MIN", "MEDIAN", "MAX", "UNIT"],
            rows: metrics.iter().filter_map(row).collect(),
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.force_no_tty().set_header(&self.header).add_rows(&self.rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        }
        let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        f.write_str(&lines.join("\n"))
    }
}

pub(crate) fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table_shows_rounds_and_omits_missing_metrics() {
        let report = json!({"rounds": [
            {"rate": 3000, "call": {"p50_ms": 2.0}, "fsync": {"p50_ms": 0.5}},
            {"rate": 1000, "call": {"p50_ms": 4.0}, "fsync": {"p50_ms": 1.0}},
        ]});
        let metrics = [
            Metric::new("rate", "k/s", "/rate").scaled(0.001),
            Metric::new("memory", "MB", "/memory"),
            Metric::difference("call - fsync", "ms", "/call/p50_ms", "/fsync/p50_ms"),
        ];
        let table = Table::of(&metrics, &report);
        assert_eq!(
            table.rows,
            [["rate", "1.00", "2.00", "3.00", "k/s"], ["call - fsync", "1.50", "2.25", "3.00", "ms"]]
        );
        assert!(table.to_string().starts_with("METRIC"), "{table}");
        assert!(Table::of(&metrics, &json!({})).rows.is_empty());
    }
}
