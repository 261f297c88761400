//! Background task of schedules. Sleeps until the first one is due, or has something to do.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use prost::Message;
use rota_core::Timestamp;
use rota_core::retry::backoff;
use rota_proto::v1;
use rota_store::{Command, DocumentKey, DocumentKind, PutDocument, Refused, Reply};
use rota_telemetry::background_tasks::{Activation, TaskMonitor};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::outcomes::remove;
use super::plan::{Plan, Slot};
use super::registry::{Entry, Registry, ScheduleKey, SharedStatus, Tracked};
use crate::creation::Creator;
use crate::grpc::Workflows;
use crate::metrics::Metrics;
use crate::seal::Sealer;
use crate::store_client::{StoreClient, no_reply};
use crate::wire::{status, time};

/// Schedules that are looked at concurrently, so that their commits are shared.
const MAX_CONCURRENT: usize = 64;
/// Delay after a failure; it doubles with each in a row.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// Jitter of a delay that is not shortened: schedules have times of their own.
const WHOLE_BACKOFF: f64 = 1.0;
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

/// Attends to schedules when they are due, to each by itself: one that takes long delays no other.
async fn attend_due<F: Future<Output = ()>>(
    registry: &Registry,
    monitor: &TaskMonitor,
    attend: impl Fn(ScheduleKey) -> F,
) {
    let (mut waiting, mut attended) = (BTreeSet::new(), HashSet::new());
    let (mut work, mut activation) = (FuturesUnordered::new(), None);
    loop {
        let (due, retry) = registry.next();
        let retry = async {
            match retry {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = registry.woken() => {}
            () = registry.clock.sleep_until(due) => {}
            () = retry => {}
            Some(key) = work.next() => {
                attended.remove(&key);
                if let Some(done) = activation.take() {
                    Activation::succeeded(done);
                }
            }
        }
        waiting.extend(registry.take_due(registry.clock.now(), Instant::now()));
        // One that is attended to has its next turn after that.
        let free = waiting.iter().filter(|key| !attended.contains(*key));
        let next: Vec<ScheduleKey> = free.take(MAX_CONCURRENT - attended.len()).cloned().collect();
        for key in next {
            waiting.remove(&key);
            attended.insert(key.clone());
            let attending = attend(key.clone());
            work.push(async move {
                attending.await;
                key
            });
        }
        if activation.is_none() && !attended.is_empty() {
            activation = Some(monitor.activate());
        }
    }
}

impl Driver {
    /// Runs as long as the control plane.
    pub(crate) async fn run(self, stop: CancellationToken, monitor: TaskMonitor) {
        tokio::select! {
            // What is left undone is found again after the next start.
            () = stop.cancelled() => {}
            () = attend_due(&self.registry, &monitor, |key| self.attend(key)) => {}
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
                let delay =
                    backoff(RETRY_DELAY, MAX_RETRY_DELAY, tracked.failures.saturating_add(1), WHOLE_BACKOFF);
                let at = Instant::now() + delay;
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
        if tracked.dirty { self.save(entry, tracked).await } else { Ok(()) }
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

    pub(super) fn skipped(
        &self,
        entry: &Entry,
        tracked: &mut Tracked,
        at: Timestamp,
        reason: String,
        count: u64,
    ) {
        tracing::info!(schedule = entry.name(), namespace = %entry.namespace(), reason, "a time was skipped");
        let schedule_time = Some(time::timestamp(at));
        tracked.status.last_skip = Some(v1::ScheduleSkip { schedule_time, reason });
        tracked.status.skipped += i64::try_from(count).unwrap_or(i64::MAX);
        tracked.dirty = true;
        self.metrics.schedule_skipped(count);
    }

    /// Stores the status. Removes the tasks and workflows beyond the history in the same commit; refusals of that change nothing.
    pub(super) async fn save(&self, entry: &Entry, tracked: &mut Tracked) -> Result<(), Status> {
        let mut commands: Vec<Command> =
            tracked.removals.iter().filter_map(|run| remove(entry.namespace(), run)).collect();
        let key = DocumentKey { kind: DocumentKind::ScheduleStatus, ..entry.document.key.clone() };
        let payload = tracked.status.encode_to_vec().into();
        commands.push(Command::PutDocument(PutDocument { key, payload, expected: tracked.expected }));
        let replies = self.store.apply(commands).await.map_err(status::store)?;
        match replies.into_iter().last().ok_or_else(no_reply)? {
            Ok(Reply::Document(document)) => {
                tracked.expected = document.expected();
                tracked.dirty = false;
                tracked.removals.clear();
                Ok(())
            }
            // The schedule was deleted meanwhile, and its status with it.
            Err(Refused::NoDocument(_)) => Err(Status::not_found("the schedule was deleted")),
            Err(refused) => Err(status::refused(refused)),
            Ok(_) => Err(crate::store_client::unexpected_reply()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_core::Namespace;
    use rota_telemetry::background_tasks::BackgroundTasks;
    use tokio::sync::mpsc;

    use super::super::clock::WallClock;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_schedule_delays_no_other() {
        let (registry, tasks) = (Registry::new(WallClock::default()), BackgroundTasks::default());
        let monitor = tasks.register("schedules", "");
        let (attended, mut seen) = mpsc::unbounded_channel();
        let attend = |(_, name): ScheduleKey| {
            let attended = attended.clone();
            async move {
                attended.send(name.clone()).unwrap();
                if name == "slow" {
                    std::future::pending::<()>().await;
                }
            }
        };
        let touch = |name: &str| registry.touch((Namespace::new("default").unwrap(), name.to_owned()));
        let test = async {
            for name in ["slow", "one", "two", "one"] {
                touch(name);
                let next = tokio::time::timeout(Duration::from_secs(60), seen.recv()).await;
                assert_eq!(next.unwrap().as_deref(), Some(name));
            }
            // Not again before it is done.
            touch("slow");
            touch("two");
            assert_eq!(seen.recv().await.as_deref(), Some("two"));
        };
        tokio::select! {
            () = attend_due(&registry, &monitor, attend) => {}
            () = test => {}
        }
    }
}
