//! Points of the history, as the API has them: sums over agents, averages and percentiles.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_core::Timestamp;
use rota_proto::{num, v1};

use super::Tier;
use super::period::Period;
use super::query::Query;
use super::row::{self, Row};
use crate::metrics::{ATTEMPT_BOUNDS, LATENCY_BOUNDS};
use crate::wire::time;

/// Points of a query, by their begin.
pub(super) struct Points<'a> {
    query: &'a Query,
    tier: &'static Tier,
    found: BTreeMap<i64, v1::MetricsPoint>,
}

impl<'a> Points<'a> {
    pub(super) fn new(query: &'a Query, tier: &'static Tier) -> Self {
        Self { query, tier, found: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, period: &Period) {
        let mut total = Row::default();
        let mut max_queued = 0_u64;
        for row in period.rows.iter().filter(|row| self.query.matches(row)) {
            max_queued = max_queued.saturating_add(row.max_queued);
            total.add(row);
        }
        total.max_queued = max_queued;
        if total != Row::default() {
            self.found.insert(period.start, point(period, &total));
        }
    }

    pub(super) fn into_wire(self) -> v1::MetricsHistory {
        let step = Duration::from_secs(self.tier.length.unsigned_abs());
        v1::MetricsHistory { step: Some(time::duration(step)), points: self.found.into_values().collect() }
    }
}

fn point(period: &Period, total: &Row) -> v1::MetricsPoint {
    let count = |at| num::to_i64(total.counter(at));
    let average = |at| total.gauge(at) as f64 / f64::from(period.readings.max(1));
    let summary = |sum: usize, first: usize, bounds: &[f64]| {
        summary(total.counter(sum), &total.buckets(first, bounds), bounds)
    };
    v1::MetricsPoint {
        start_time: Some(time::timestamp(Timestamp(period.start.saturating_mul(1_000_000)))),
        created_tasks: count(row::CREATED),
        succeeded_tasks: count(row::SUCCEEDED),
        failed_tasks: count(row::FAILED),
        cancelled_tasks: count(row::CANCELLED),
        queued_tasks: average(row::QUEUED),
        max_queued_tasks: num::to_i64(total.max_queued),
        wait: summary(row::WAIT_SUM, row::WAIT, &LATENCY_BOUNDS),
        attempt: summary(row::ATTEMPT_SUM, row::ATTEMPT, &ATTEMPT_BOUNDS),
        cost_micro_usd: count(row::COST),
        input_tokens: count(row::INPUT),
        output_tokens: count(row::OUTPUT),
        workers: average(row::WORKERS),
        unavailable_workers: average(row::UNAVAILABLE),
        slots: average(row::SLOTS),
        used_slots: average(row::USED_SLOTS),
    }
}

/// Returns the summary of a histogram; `None` if it is empty. The sum is in microseconds.
fn summary(sum: u64, buckets: &[u64], bounds: &[f64]) -> Option<v1::DurationSummary> {
    let count: u64 = buckets.iter().sum();
    let percentile = |share| Some(time::duration(percentile(share, buckets, bounds)));
    (count > 0).then(|| v1::DurationSummary {
        count: num::to_i64(count),
        mean: Some(time::duration(Duration::from_micros(sum / count))),
        p50: percentile(0.5),
        p95: percentile(0.95),
    })
}

/// Returns the duration that a share of a histogram is below, interpolated within its bucket; the last bound for what is above it.
fn percentile(share: f64, buckets: &[u64], bounds: &[f64]) -> Duration {
    let wanted = share * buckets.iter().sum::<u64>() as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, upper) in buckets.iter().zip(bounds) {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            return Duration::from_secs_f64(lower + (upper - lower) * (wanted - below) / count);
        }
        (below, lower) = (below + count, *upper);
    }
    Duration::from_secs_f64(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_interpolated_within_buckets() {
        let at = |share, buckets: &[u64]| percentile(share, buckets, &[1.0, 5.0]).as_secs_f64();
        assert_eq!(at(0.5, &[10, 0, 0]), 0.5);
        assert_eq!(at(0.75, &[10, 10, 0]), 3.0);
        assert_eq!(at(0.95, &[0, 0, 4]), 5.0);
        assert_eq!(summary(0, &[0, 0, 0], &[1.0, 5.0]), None);
    }
}
