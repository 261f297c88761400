//! What is kept of an agent and of a model that it uses, and how it is read from the samples of the metrics.

use std::collections::{BTreeMap, btree_map};

use prost::Message;
use rota_telemetry::metrics::{Sample, SampleValue};

use crate::metrics::LATENCY_BOUNDS;

/// Names of the metrics of which a history is kept.
pub(super) const NAMES: &[&str] = &[
    "rota_tasks_created_total",
    "rota_tasks_ended_total",
    "rota_queue_tasks",
    "rota_dispatch_latency_seconds",
    "rota_attempt_duration_seconds",
    "rota_cost_usd_total",
    "rota_tokens_total",
    "rota_workers",
    "rota_worker_slots",
];

// Positions of counters in a row. They are stored: other bounds of the histograms need new positions.
pub(super) const CREATED: usize = 0;
pub(super) const SUCCEEDED: usize = 1;
pub(super) const FAILED: usize = 2;
pub(super) const CANCELLED: usize = 3;
/// In millionths of a US dollar.
pub(super) const COST: usize = 4;
pub(super) const INPUT: usize = 5;
pub(super) const OUTPUT: usize = 6;
/// Sum of the histogram of waits, in microseconds.
pub(super) const WAIT_SUM: usize = 7;
/// Sum of the histogram of attempts, in microseconds.
pub(super) const ATTEMPT_SUM: usize = 8;
/// The first bucket of each histogram; the last one has no bound.
pub(super) const WAIT: usize = 9;
pub(super) const ATTEMPT: usize = WAIT + LATENCY_BOUNDS.len() + 1;

// Positions of gauges in a row. They are stored.
pub(super) const QUEUED: usize = 0;
pub(super) const WORKERS: usize = 1;
pub(super) const UNAVAILABLE: usize = 2;
pub(super) const SLOTS: usize = 3;
pub(super) const USED_SLOTS: usize = 4;
const GAUGES: usize = 5;

/// Namespace, agent and model, or what the metrics have in their place. Only metrics of cost and tokens have a model.
pub(super) type Key = (String, String, String);
pub(super) type Rows = BTreeMap<Key, Row>;

/// What an agent did in a period, or what it spent with a model.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Row {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) agent: String,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) counters: Vec<u64>,
    /// Sums over all readings of the period.
    #[prost(uint64, repeated, tag = "4")]
    pub(super) gauges: Vec<u64>,
    #[prost(uint64, tag = "5")]
    pub(super) max_queued: u64,
    /// Empty for what has no model, or an unknown one, as in rows that are stored without.
    #[prost(string, tag = "6")]
    pub(super) model: String,
}

impl Row {
    pub(super) fn of((namespace, agent, model): Key) -> Self {
        Self { namespace, agent, model, ..Self::default() }
    }

    pub(super) fn counter(&self, at: usize) -> u64 {
        self.counters.get(at).copied().unwrap_or_default()
    }

    /// Returns the counters of a histogram with these bounds.
    pub(super) fn buckets(&self, first: usize, bounds: &[f64]) -> Vec<u64> {
        (first..=first + bounds.len()).map(|at| self.counter(at)).collect()
    }

    pub(super) fn gauge(&self, at: usize) -> u64 {
        self.gauges.get(at).copied().unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.counters.iter().chain(&self.gauges).all(|count| *count == 0)
    }

    /// Adds another row, of the same period or of a part of it.
    pub(super) fn add(&mut self, other: &Row) {
        add(&mut self.counters, &other.counters);
        add(&mut self.gauges, &other.gauges);
        self.max_queued = self.max_queued.max(other.max_queued);
    }

    /// Returns a counter to be increased. Rows of models have the first ones only, and stay short.
    fn counter_mut(&mut self, at: usize) -> &mut u64 {
        if self.counters.len() <= at {
            self.counters.resize(at + 1, 0);
        }
        &mut self.counters[at]
    }

    fn count(&mut self, at: usize, count: f64) {
        *self.counter_mut(at) += whole(count);
    }

    fn measure(&mut self, at: usize, value: f64) {
        self.gauges.resize(GAUGES, 0);
        self.gauges[at] += whole(value);
    }

    fn observe(&mut self, (sum_at, first): (usize, usize), sum: f64, counts: &[u64]) {
        self.count(sum_at, sum * 1e6);
        for (at, count) in (first..).zip(counts) {
            *self.counter_mut(at) += count;
        }
    }

    fn take(&mut self, sample: &Sample) {
        let value = match &sample.value {
            SampleValue::Number(value) => *value,
            SampleValue::Histogram { sum, counts } => {
                return match sample.name.as_str() {
                    "rota_dispatch_latency_seconds" => self.observe((WAIT_SUM, WAIT), *sum, counts),
                    _ => self.observe((ATTEMPT_SUM, ATTEMPT), *sum, counts),
                };
            }
        };
        match sample.name.as_str() {
            "rota_tasks_created_total" => self.count(CREATED, value),
            "rota_cost_usd_total" => self.count(COST, value * 1e6),
            "rota_tasks_ended_total" => match sample.label("outcome") {
                "succeeded" => self.count(SUCCEEDED, value),
                "failed" => self.count(FAILED, value),
                _ => self.count(CANCELLED, value),
            },
            "rota_tokens_total" => match sample.label("type") {
                "input" => self.count(INPUT, value),
                "output" => self.count(OUTPUT, value),
                _ => {}
            },
            "rota_queue_tasks" => {
                self.measure(QUEUED, value);
                self.max_queued = self.gauge(QUEUED);
            }
            "rota_workers" => {
                self.measure(WORKERS, value);
                if !matches!(sample.label("state"), "idle" | "busy") {
                    self.measure(UNAVAILABLE, value);
                }
            }
            "rota_worker_slots" => {
                self.measure(SLOTS, value);
                if sample.label("state") == "used" {
                    self.measure(USED_SLOTS, value);
                }
            }
            _ => {}
        }
    }
}

fn add(to: &mut Vec<u64>, from: &[u64]) {
    to.resize(to.len().max(from.len()), 0);
    for (to, from) in to.iter_mut().zip(from) {
        *to = to.saturating_add(*from);
    }
}

/// Rounds a number that is not negative.
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Counters since the start of the process, as of the last reading.
#[derive(Debug, Default)]
pub(super) struct Counted(BTreeMap<Key, Vec<u64>>);

impl Counted {
    /// Returns the rows of a reading: what was counted since the one before it, and the gauges.
    pub(super) fn take_in(&mut self, samples: Vec<Sample>) -> Rows {
        let mut rows = Rows::new();
        for sample in &samples {
            let label = |name| sample.label(name).to_owned();
            let key = (label("namespace"), label("agent"), label("model"));
            rows.entry(key.clone()).or_insert_with(|| Row::of(key)).take(sample);
        }
        for (key, row) in &mut rows {
            let total = row.counters.clone();
            match self.0.entry(key.clone()) {
                btree_map::Entry::Vacant(entry) => drop(entry.insert(total)),
                btree_map::Entry::Occupied(mut entry) => {
                    for (count, before) in row.counters.iter_mut().zip(entry.get()) {
                        *count = count.saturating_sub(*before);
                    }
                    entry.insert(total);
                }
            }
        }
        rows.retain(|_, row| !row.is_empty());
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
        let agent = [("namespace", "n"), ("agent", "a")];
        let labels = agent.iter().chain(labels).map(|(name, value)| (name.to_string(), value.to_string()));
        Sample { name: name.to_owned(), labels: labels.collect(), value: SampleValue::Number(value) }
    }

    fn reading(created: f64, idle: f64) -> Vec<Sample> {
        vec![
            sample("rota_tasks_created_total", &[], created),
            sample("rota_workers", &[("state", "idle")], idle),
            sample("rota_workers", &[("state", "away")], 1.0),
        ]
    }

    #[test]
    fn counters_become_differences_and_gauges_stay() {
        let mut counted = Counted::default();
        let key = ("n".to_owned(), "a".to_owned(), String::new());
        for (created, expected) in [(3.0, 3), (3.0, 0), (10.0, 7)] {
            let rows = counted.take_in(reading(created, 2.0));
            let row = &rows[&key];
            assert_eq!(row.counter(CREATED), expected);
            assert_eq!((row.gauge(WORKERS), row.gauge(UNAVAILABLE)), (3, 1));
        }
    }

    #[test]
    fn costs_and_tokens_have_a_row_per_model() {
        let mut counted = Counted::default();
        let key = |model: &str| ("n".to_owned(), "a".to_owned(), model.to_owned());
        for (large, expected) in [(1.5, 1_500_000), (2.0, 500_000)] {
            let rows = counted.take_in(vec![
                sample("rota_tasks_created_total", &[], 2.0 * large),
                sample("rota_cost_usd_total", &[("model", "large")], large),
                sample("rota_cost_usd_total", &[("model", "small")], large / 2.0),
                sample("rota_tokens_total", &[("model", "small"), ("type", "input")], 10.0 * large),
            ]);
            assert_eq!(rows.keys().collect::<Vec<_>>(), [&key(""), &key("large"), &key("small")]);
            assert_eq!(rows[&key("")].counter(COST), 0);
            assert_eq!(rows[&key("large")].counter(COST), expected);
            assert_eq!(rows[&key("small")].counter(COST), expected / 2);
            assert_eq!(rows[&key("small")].counter(INPUT), expected / 100_000);
        }
    }

    #[test]
    fn agents_without_anything_have_no_row() {
        let mut counted = Counted::default();
        let idle = || vec![sample("rota_tasks_created_total", &[], 5.0)];
        assert_eq!(counted.take_in(idle()).len(), 1);
        assert_eq!(counted.take_in(idle()).len(), 0);
    }
}
