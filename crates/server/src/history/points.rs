//! Points of the history, as the API has them: sums over agents, averages and percentiles.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_core::{AgentName, Namespace, Timestamp};
use rota_proto::{num, v1};
use tonic::Status;

use super::period::Period;
use super::row::{self, Row};
use super::{HOURS, MINUTES, Tier};
use crate::metrics::{ATTEMPT_BOUNDS, LATENCY_BOUNDS};
use crate::wire::status::invalid;
use crate::wire::{names, time};

/// Longest time that is shown by the minute, in seconds.
const MAX_BY_MINUTE: i64 = 12 * 3600;

/// Latest time of a query, in seconds since 1970: the year 9999.
const MAX_TIME: i64 = 253_402_300_799;

/// Time and agents whose metrics are wanted.
#[derive(Debug)]
pub(super) struct Query {
    /// All if it is `None`.
    pub(super) namespace: Option<Namespace>,
    pub(super) agent: Option<AgentName>,
    /// Begin of the wanted time, in seconds since 1970.
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Query {
    pub(super) fn from_wire(request: &v1::GetMetricsHistoryRequest, now: i64) -> Result<Self, Status> {
        let agent = match request.agent.as_str() {
            "" => None,
            agent => Some(names::agent_id("agent", agent)?),
        };
        let seconds = |at: &pbjson_types::Timestamp| at.seconds.clamp(0, MAX_TIME);
        let end = request.end_time.as_ref().map_or(now, seconds);
        let start = request.start_time.as_ref().map_or(end.saturating_sub(3600), seconds);
        if start >= end {
            return Err(invalid("start_time", "must be before the end"));
        }
        Ok(Self { namespace: names::parent_or_all("parent", &request.parent)?, agent, start, end })
    }

    pub(super) fn tier(&self, now: i64) -> &'static Tier {
        let is_known = self.start > now - MINUTES.length * MINUTES.slots;
        if self.end - self.start <= MAX_BY_MINUTE && is_known { &MINUTES } else { &HOURS }
    }

    fn matches(&self, row: &Row) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| namespace.as_str() == row.namespace)
            && self.agent.as_ref().is_none_or(|agent| agent.as_str() == row.agent)
    }
}

/// Points of a query, by their begin.
pub(super) struct Points<'a> {
    query: &'a Query,
    tier: &'static Tier,
    /// Begin of the first and of the last period.
    first: i64,
    last: i64,
    found: BTreeMap<i64, v1::MetricsPoint>,
}

impl<'a> Points<'a> {
    pub(super) fn new(query: &'a Query, tier: &'static Tier, now: i64) -> Self {
        let last = tier.start(query.end.min(now));
        let first = tier.start(query.start).max(last - (tier.slots - 1) * tier.length);
        Self { query, tier, first, last, found: BTreeMap::new() }
    }

    /// Returns the slots of the periods, first and last of each range, in which names are in order.
    pub(super) fn slots(&self) -> Vec<(i64, i64)> {
        if self.first > self.last {
            return Vec::new();
        }
        let (first, last) = (self.tier.slot(self.first), self.tier.slot(self.last));
        if first <= last { vec![(first, last)] } else { vec![(first, self.tier.slots - 1), (0, last)] }
    }

    /// Adds a period, if it belongs to the query.
    pub(super) fn add(&mut self, period: &Period) {
        // What stands at a name may be of an earlier round.
        if !(self.first..=self.last).contains(&period.start) {
            return;
        }
        let mut total = Row::default();
        let mut max_queued = 0_u64;
        for row in period.rows.iter().filter(|row| self.query.matches(row)) {
            max_queued = max_queued.saturating_add(row.max_queued);
            total.add(row);
        }
        total.max_queued = max_queued;
        if total == Row::default() {
            self.found.remove(&period.start);
        } else {
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

    fn query(start: i64, end: i64) -> Query {
        Query { namespace: None, agent: None, start, end }
    }

    #[test]
    fn percentiles_are_interpolated_within_buckets() {
        let at = |share, buckets: &[u64]| percentile(share, buckets, &[1.0, 5.0]).as_secs_f64();
        assert_eq!(at(0.5, &[10, 0, 0]), 0.5);
        assert_eq!(at(0.75, &[10, 10, 0]), 3.0);
        assert_eq!(at(0.95, &[0, 0, 4]), 5.0);
        assert_eq!(summary(0, &[0, 0, 0], &[1.0, 5.0]), None);
    }

    #[test]
    fn recent_times_are_by_the_minute() {
        let now = 100 * 3600;
        for (start, end, expected) in [
            (now - 3600, now, &MINUTES),
            (now - 47 * 3600, now - 46 * 3600, &MINUTES),
            (now - 13 * 3600, now, &HOURS),
            (now - 49 * 3600, now - 48 * 3600, &HOURS),
        ] {
            assert_eq!(query(start, end).tier(now), expected, "{start}");
        }
    }

    #[test]
    fn slots_wrap_around() {
        let round = MINUTES.length * MINUTES.slots;
        let slots = |start, end| Points::new(&query(start, end), &MINUTES, end).slots();
        assert_eq!(slots(round, round + 120), [(0, 2)]);
        assert_eq!(slots(round - 60, round + 60), [(MINUTES.slots - 1, MINUTES.slots - 1), (0, 1)]);
        assert_eq!(slots(round + 60, round), []);
        // Never more than there are.
        let whole: i64 = slots(0, 5 * round).iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(whole, MINUTES.slots);
    }

    #[test]
    fn periods_of_an_earlier_round_are_left_out() {
        let query = query(3600, 3720);
        let mut points = Points::new(&query, &MINUTES, 4000);
        let row = Row { max_queued: 1, ..Row::default() };
        for start in [3600, 3660, 3600 - MINUTES.length * MINUTES.slots, 3780] {
            points.add(&Period { start, readings: 1, rows: vec![row.clone()] });
        }
        let starts = points.into_wire().points.into_iter().filter_map(|point| point.start_time);
        assert_eq!(starts.map(|at| at.seconds).collect::<Vec<_>>(), [3600, 3660]);
    }
}
