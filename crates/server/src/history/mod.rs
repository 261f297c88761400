//! History of the metrics: what they counted in each of the last 2,880 minutes and 720 hours, so that pages show the past without a
//! Prometheus. Read from the registry of the metrics, and kept as one document for each minute and hour: their names repeat, so that
//! a new one replaces the one that is too old. Counts nothing itself.

mod days;
mod period;
mod points;
mod query;
mod row;
mod spending;
mod unwritten;

use std::sync::Arc;
use std::time::Duration;

use rota_core::{Namespace, Timestamp};
use rota_proto::v1;
use rota_store::{Command, DocumentKey, DocumentKind, DocumentsPage, Expected, PutDocument};
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::days::Days;
use self::period::Period;
use self::points::Points;
use self::query::{Query, Span};
use self::row::{Counted, Rows};
use self::spending::{Spending, USUAL_LENGTH};
use crate::metrics::Scraper;
use crate::schedules::WallClock;
use crate::store_client::StoreClient;
use crate::wire::status;

/// A reading belongs to the minute before if it is not later in its own: that at the end of a minute is never in time.
const LATE: Duration = Duration::from_secs(5);
/// How long a reading serves callers, so that they cannot keep the store busy.
const READING_TTL: Duration = Duration::from_secs(1);
const PAGE_BYTES: usize = 1 << 20;
/// Length of a day of UTC, in seconds.
const DAY: i64 = 24 * 3600;
/// Periods that are kept in memory while they cannot be written.
const MAX_UNWRITTEN: usize = 130;
/// Periods that one batch writes.
const WRITTEN_AT_ONCE: usize = 8;

/// Length, number and names of the documents of minutes or hours.
#[derive(Debug, PartialEq, Eq)]
struct Tier {
    /// Begin of the names of its documents.
    prefix: &'static str,
    /// Time that a period covers, in seconds.
    length: i64,
    /// Number of its documents, whose names repeat after it.
    slots: i64,
    /// Number of its rows that are of a model, in addition to those of agents. Costs are shown by model for hours only.
    models: usize,
}

static MINUTES: Tier = Tier { prefix: "minute-", length: 60, slots: 48 * 60, models: 0 };
static HOURS: Tier = Tier { prefix: "hour-", length: 3600, slots: 30 * 24, models: 200 };

impl Tier {
    fn start(&self, seconds: i64) -> i64 {
        seconds.div_euclid(self.length) * self.length
    }

    fn slot(&self, start: i64) -> i64 {
        start.div_euclid(self.length).rem_euclid(self.slots)
    }

    fn name(&self, slot: i64) -> String {
        format!("{}{slot:04}", self.prefix)
    }

    fn key(&self, start: i64) -> DocumentKey {
        let name = self.name(self.slot(start));
        DocumentKey { kind: DocumentKind::MetricsHistory, namespace: Namespace::default(), name }
    }
}

/// Keeps the history. Clones share it.
#[derive(Clone)]
pub(crate) struct History {
    scraper: Scraper,
    store: StoreClient,
    clock: WallClock,
    latest: Arc<Mutex<Latest>>,
}

/// Counters as of the last reading, and what has not ended.
#[derive(Debug, Default)]
struct Latest {
    at: Option<Instant>,
    counted: Counted,
    /// The minute and the hour that have not ended, last, and those before them that are not written yet.
    periods: Vec<(&'static Tier, Period)>,
    /// Sums of days before them, for spending.
    days: Days,
}

impl Latest {
    /// Returns the period of a time, if it is known.
    fn open(&mut self, tier: &Tier, at: i64) -> Option<&mut Period> {
        let mut of_tier = self.periods.iter_mut().filter(|(of, _)| *of == tier);
        of_tier.find(|(_, period)| period.start == tier.start(at)).map(|(_, period)| period)
    }

    /// Adds a period that begins. A store that takes no writes for hours costs bounded memory.
    fn begin(&mut self, tier: &'static Tier, period: Period) {
        self.periods.push((tier, period));
        let excess = self.periods.len().saturating_sub(MAX_UNWRITTEN);
        self.periods.drain(..excess);
    }

    /// Forgets periods that are written, unless they have changed since, or are the last of their length.
    fn forget(&mut self, written: &[(&'static Tier, Period)]) {
        let last = |tier: &Tier| self.periods.iter().rposition(|(of, _)| *of == tier);
        let kept = [last(&MINUTES), last(&HOURS)];
        let mut index = 0;
        self.periods.retain(|one| {
            let is_kept = kept.contains(&Some(index)) || !written.contains(one);
            index += 1;
            is_kept
        });
    }
}

impl History {
    pub(crate) fn new(scraper: Scraper, store: StoreClient, clock: WallClock) -> Self {
        Self { scraper, store, clock, latest: Arc::default() }
    }

    /// Reads and writes once a minute, until `stop`. What is counted after the last reading is missing from the history.
    pub(crate) async fn run(self, stop: CancellationToken, monitor: TaskMonitor) {
        loop {
            let next = (MINUTES.start(seconds(self.clock.now())) + MINUTES.length) * 1_000_000;
            while self.clock.now().0 < next {
                let sleep = self.clock.sleep_until(Some(Timestamp(next)));
                if stop.run_until_cancelled(sleep).await.is_none() {
                    return;
                }
            }
            let activation = monitor.activate();
            match self.write().await {
                Ok(()) => activation.succeeded(),
                Err(error) => {
                    tracing::warn!(%error, "failed to write the history of the metrics");
                    activation.failed(&error);
                }
            }
        }
    }

    async fn write(&self) -> Result<(), rota_store::Error> {
        let periods = {
            let mut latest = self.latest.lock().await;
            self.read(&mut latest).await?;
            latest.unwritten()
        };
        for periods in periods.chunks(WRITTEN_AT_ONCE) {
            // A control plane without agents and tasks writes nothing.
            let filled = periods.iter().filter(|(_, period)| !period.is_empty());
            let puts = filled.map(|(tier, period)| {
                let (key, payload) = (tier.key(period.start), period.encode());
                Command::PutDocument(PutDocument { key, payload, expected: Expected::Any })
            });
            let puts: Vec<_> = puts.collect();
            if !puts.is_empty() {
                for reply in self.store.apply_lazily(puts).await? {
                    if let Err(refused) = reply {
                        tracing::warn!(%refused, "a part of the history of the metrics was not written");
                    }
                }
            }
            self.latest.lock().await.forget(periods);
        }
        Ok(())
    }

    /// Adds what has happened since the last reading to the open minute and hour.
    async fn read(&self, latest: &mut Latest) -> Result<(), rota_store::Error> {
        let samples = match self.scraper.samples(row::NAMES).await {
            Ok(samples) => samples,
            Err(error) => {
                tracing::warn!(%error, "failed to read the metrics");
                return Ok(());
            }
        };
        let at = seconds(self.clock.now() - LATE);
        latest.days.forget_open(at);
        for tier in [&MINUTES, &HOURS] {
            if latest.open(tier, at).is_none() {
                let period = self.stored(tier, at).await?;
                latest.begin(tier, period);
            }
        }
        let rows = latest.counted.take_in(samples);
        for tier in [&MINUTES, &HOURS] {
            if let Some(period) = latest.open(tier, at) {
                period.add(&rows, tier.models);
            }
        }
        latest.at = Some(Instant::now());
        Ok(())
    }

    /// Returns the period of a time: as an earlier process has left it, or a new one.
    async fn stored(&self, tier: &Tier, at: i64) -> Result<Period, rota_store::Error> {
        let start = tier.start(at);
        let known = self.store.reads().document(tier.key(start)).await?;
        let known = known.and_then(|known| Period::decode(&known));
        Ok(known.filter(|known| known.start == start).unwrap_or_else(|| Period::new(start)))
    }

    /// Returns the metrics of a time, up to now.
    pub(crate) async fn get(
        &self,
        request: &v1::GetMetricsHistoryRequest,
    ) -> Result<v1::MetricsHistory, Status> {
        let now = seconds(self.clock.now());
        let times = (request.start_time.as_ref(), request.end_time.as_ref());
        let query = Query::new((&request.parent, &request.agent), times, HOURS.length, now)?;
        let span = Span::new(query.tier(now), (query.start, query.end), now);
        let mut points = Points::new(&query, span.tier);
        self.periods(&span, |period| points.add(&period)).await.map_err(status::store)?;
        Ok(points.into_wire())
    }

    /// Returns what was spent in a time, up to now.
    pub(crate) async fn spending(&self, request: &v1::GetSpendingRequest) -> Result<v1::Spending, Status> {
        let now = seconds(self.clock.now());
        let times = (request.start_time.as_ref(), request.end_time.as_ref());
        let query = Query::new((&request.parent, &request.agent), times, USUAL_LENGTH, now)?;
        // The hour that begins with the end is none of them.
        let span = Span::new(&HOURS, (query.start, query.end - 1), now);
        let mut spending = Spending::default();
        for part in span.days() {
            let sum = self.day(&part, part.ended_day(now)).await.map_err(status::store)?;
            spending.add(&query, &sum);
        }
        Ok(spending.into_wire())
    }

    /// Returns the sum of a day, or of a part of one, which is kept if the whole day has ended.
    async fn day(&self, part: &Span, ended: Option<i64>) -> Result<Arc<Period>, rota_store::Error> {
        if let Some(start) = ended {
            let known = self.latest.lock().await.days.get(start);
            if let Some(known) = known {
                return Ok(known);
            }
        }
        let mut rows = Rows::new();
        self.periods(part, |hour| days::add(&mut rows, hour)).await?;
        let sum = Arc::new(days::sum(part.first, rows));
        if ended.is_some() {
            self.latest.lock().await.days.keep(Arc::clone(&sum));
        }
        Ok(sum)
    }

    /// Passes on each period of a span: as it is in memory, which is newer than what the store has of it, or of the store.
    async fn periods(
        &self,
        span: &Span,
        mut add: impl FnMut(Period) + Send,
    ) -> Result<(), rota_store::Error> {
        let newest: Vec<Period> = {
            let mut latest = self.latest.lock().await;
            if latest.at.is_none_or(|at| at.elapsed() >= READING_TTL) {
                self.read(&mut latest).await?;
            }
            let of_span = latest
                .periods
                .iter()
                .filter(|(tier, period)| *tier == span.tier && span.contains(period.start));
            of_span.map(|(_, period)| period.clone()).collect()
        };
        let known: Vec<_> = newest.iter().map(|period| period.start).collect();
        for period in newest {
            add(period);
        }
        for range in span.slots() {
            let stored = |period: Period| {
                if span.contains(period.start) && !known.contains(&period.start) {
                    add(period);
                }
            };
            self.stored_periods(span.tier, range, stored).await?;
        }
        Ok(())
    }

    /// Passes on the periods of the store in a range of slots, a page at a time.
    async fn stored_periods(
        &self,
        tier: &Tier,
        (first, last): (i64, i64),
        mut add: impl FnMut(Period) + Send,
    ) -> Result<(), rota_store::Error> {
        let namespace = Namespace::default();
        let before = if first == 0 { tier.prefix.to_owned() } else { tier.name(first - 1) };
        let mut page = DocumentsPage {
            kind: DocumentKind::MetricsHistory,
            namespace: Some(namespace.clone()),
            after: Some((namespace.clone(), before)),
            limit: usize::try_from(last - first + 1).unwrap_or(1),
            bytes: PAGE_BYTES,
        };
        let end = tier.name(last);
        loop {
            let found = self.store.reads().documents(page.clone()).await?;
            let mut more = found.more;
            for document in &found.documents {
                if document.key.name > end {
                    more = false;
                    break;
                }
                if let Some(period) = Period::decode(document) {
                    add(period);
                }
            }
            match found.documents.last() {
                Some(last) if more => page.after = Some((namespace.clone(), last.key.name.clone())),
                _ => return Ok(()),
            }
        }
    }
}

fn seconds(at: Timestamp) -> i64 {
    at.0.div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwritten_periods_are_bounded_and_the_newest_stay() {
        let mut latest = Latest::default();
        for minute in 0..600 {
            for tier in [&MINUTES, &HOURS] {
                if latest.open(tier, minute * 60).is_none() {
                    latest.begin(tier, Period::new(tier.start(minute * 60)));
                }
            }
            assert!(latest.periods.len() <= MAX_UNWRITTEN);
            assert!(
                latest.open(&MINUTES, minute * 60).is_some() && latest.open(&HOURS, minute * 60).is_some()
            );
        }
        assert_eq!(latest.periods.len(), MAX_UNWRITTEN);
    }
}
