//! Background task of schedules. Sleeps until the first one is due, or has something to do.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use prost::Message;
use rota_core::Timestamp;
use rota_proto::v1;
use rota_store::{Command, DocumentKey, DocumentKind, PutDocument, Refused, Reply};
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::plan::{Plan, Slot};
use super::registry::{Entry, Registry, ScheduleKey, SharedStatus, Tracked};
use crate::grpc::{Creator, Workflows};
use crate::metrics::Metrics;
use crate::seal::Sealer;
use crate::store_client::{StoreClient, no_reply};
use crate::wire::{status, time};

/// Schedules that are looked at concurrently, so that their commits are shared.
const MAX_CONCURRENT: usize = 64;
/// Delay after a failure; it doubles with each in a row.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// Begins a problem that lasts until a try succeeds, and not until the next run starts.
const RETRYING: &str = "retrying: ";

/// Starts and ends the runs of schedules.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(crate) registry: Arc<Registry>,
    pub(crate) creator: Creator,
    pub(crate) workflows: Workflows,
    pub(crate) store: StoreClient,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Driver {
    /// Runs as long as the control plane.
    pub(crate) async fn run(self, stop: CancellationToken, monitor: TaskMonitor) {
        loop {
            let (due, retry) = self.registry.next();
            let retry = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.registry.woken() => {}
                () = self.registry.clock.sleep_until(due) => {}
                () = retry => {}
            }
            let keys = self.registry.take_due(self.registry.clock.now(), Instant::now());
            if keys.is_empty() {
                continue;
            }
            let activation = monitor.activate();
            let work =
                futures::stream::iter(keys).for_each_concurrent(MAX_CONCURRENT, |key| self.attend(key));
            tokio::select! {
                // What is left undone is found again after the next start.
                () = stop.cancelled() => return,
                () = work => activation.succeeded(),
            }
        }
    }

    /// Does what is to be done for a schedule now, and sets when it is due next.
    async fn attend(&self, key: ScheduleKey) {
        let Some(entry) = self.registry.get(&key) else { return self.registry.set_due(&key, None) };
        let shared = self.lock_of(&entry).await;
        let mut tracked = shared.lock().await;
        if tracked.retry_at.is_some_and(|at| at > Instant::now()) {
            let at = tracked.retry_at.unwrap_or_else(Instant::now);
            self.registry.set_due(&key, None);
            return self.registry.retry(&key, at);
        }
        let now = self.registry.clock.now();
        tracked.sync(&entry, now);
        match self.work(&entry, &mut tracked, now).await {
            Ok(()) => {
                (tracked.failures, tracked.retry_at) = (0, None);
                if tracked.status.problem.starts_with(RETRYING) {
                    tracked.status.problem.clear();
                }
                let next = match &entry.timetable {
                    Ok(timetable) if !entry.is_paused() => {
                        entry.rules.next(timetable, tracked.status.cursor())
                    }
                    _ => None,
                };
                self.registry.set_due(&key, next.map(|slot| slot.due));
            }
            Err(status) => {
                let delay = RETRY_DELAY * 2_u32.saturating_pow(tracked.failures.min(10));
                let at = Instant::now() + delay.min(MAX_RETRY_DELAY);
                tracing::warn!(schedule = key.1, namespace = %key.0, %status, "a schedule could not be run, retrying");
                (tracked.failures, tracked.retry_at) = (tracked.failures + 1, Some(at));
                tracked.status.problem = format!("{RETRYING}{}", status.message());
                self.registry.set_due(&key, None);
                self.registry.retry(&key, at);
            }
        }
        self.registry.note_problem(&entry, &tracked.status);
    }

    /// Returns the status of a schedule, a new one if that is of an earlier schedule of its name.
    pub(super) async fn lock_of(&self, entry: &Entry) -> SharedStatus {
        let shared = self.registry.status(entry);
        let is_own = shared.lock().await.uid == entry.document.uid;
        if is_own { shared } else { self.registry.replace_status(entry) }
    }

    async fn work(&self, entry: &Arc<Entry>, tracked: &mut Tracked, now: Timestamp) -> Result<(), Status> {
        self.settle_ended(entry, tracked).await?;
        self.create_missing(entry, tracked, now).await?;
        let Ok(timetable) = &entry.timetable else { return Ok(()) };
        if !entry.is_paused() {
            let plan = entry.rules.plan(timetable, tracked.status.cursor(), now);
            self.follow_plan(entry, tracked, plan, now).await?;
        }
        if tracked.dirty { self.save(entry, tracked, Vec::new()).await } else { Ok(()) }
    }

    async fn follow_plan(
        &self,
        entry: &Arc<Entry>,
        tracked: &mut Tracked,
        plan: Plan,
        now: Timestamp,
    ) -> Result<(), Status> {
        if let Some((at, reason)) = plan.last_skip {
            self.skipped(entry, tracked, at, reason, plan.skipped);
        } else if plan.skipped > 0 {
            tracked.status.skipped += i64::try_from(plan.skipped).unwrap_or(i64::MAX);
            self.metrics.schedule_skipped(plan.skipped);
        }
        for slot in plan.runs {
            self.run_or_skip(entry, tracked, slot, now).await?;
        }
        if let Some(cursor) = plan.cursor.filter(|cursor| *cursor != tracked.status.cursor()) {
            tracked.status.cursor = cursor.0;
            tracked.dirty = true;
        }
        Ok(())
    }

    async fn run_or_skip(
        &self,
        entry: &Arc<Entry>,
        tracked: &mut Tracked,
        slot: Slot,
        now: Timestamp,
    ) -> Result<(), Status> {
        // Runs that have ended since do not count.
        self.settle_ended(entry, tracked).await?;
        match super::runs::refusal(entry, tracked) {
            Some(reason) => {
                tracked.status.cursor = slot.time.0;
                self.skipped(entry, tracked, slot.time, reason, 1);
                Ok(())
            }
            None => {
                let latest = entry.rules.latest_start(slot).map_or(0, |at| at.0);
                self.start(entry, tracked, slot, latest, now).await
            }
        }
    }

    fn skipped(&self, entry: &Entry, tracked: &mut Tracked, at: Timestamp, reason: String, count: u64) {
        tracing::info!(schedule = entry.name(), namespace = %entry.namespace(), reason, "a time was skipped");
        let schedule_time = Some(time::timestamp(at));
        tracked.status.last_skip = Some(v1::ScheduleSkip { schedule_time, reason });
        tracked.status.skipped += i64::try_from(count).unwrap_or(i64::MAX);
        tracked.dirty = true;
        self.metrics.schedule_skipped(count);
    }

    /// Stores the status, in one commit with other commands, whose refusals change nothing.
    pub(super) async fn save(
        &self,
        entry: &Entry,
        tracked: &mut Tracked,
        mut others: Vec<Command>,
    ) -> Result<(), Status> {
        let key = DocumentKey { kind: DocumentKind::ScheduleStatus, ..entry.document.key.clone() };
        let payload = tracked.status.encode_to_vec().into();
        others.push(Command::PutDocument(PutDocument { key, payload, expected: tracked.expected }));
        let replies = self.store.apply(others).await.map_err(status::store)?;
        match replies.into_iter().last().ok_or_else(no_reply)? {
            Ok(Reply::Document(document)) => {
                tracked.expected = document.expected();
                tracked.dirty = false;
                Ok(())
            }
            // The schedule was deleted meanwhile, and its status with it.
            Err(Refused::NoDocument(_)) => Err(Status::not_found("the schedule was deleted")),
            Err(refused) => Err(status::refused(refused)),
            Ok(_) => Err(crate::store_client::unexpected_reply()),
        }
    }
}
