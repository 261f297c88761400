//! What the control plane reports about itself: store, background tasks, replicas, counts. Watchers share one look at it, and nothing is
//! looked at while there are none.

use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_core::task::State as TaskState;
use rota_proto::num;
use rota_proto::v1::{self, BackgroundTaskState};
use rota_telemetry::background_tasks;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::streams::{Streams, send};
use super::system_news::News;
use crate::clock::now;
use crate::demand::Demand;
use crate::health::{self, Cause, Health, StoreCheck};
use crate::metrics::Metrics;
use crate::store_client::StoreClient;
use crate::wire::{breaker, time};

/// Least time between looks while someone watches. Workers, queues and breakers report that they have changed.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Time between looks for what is not pushed: a store that does not answer, or a task that hangs, reports nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two messages to a watcher that differ in numbers alone.
const NUMBERS_INTERVAL: Duration = Duration::from_secs(5);
/// Messages that may wait for a watcher.
const STREAM_BUFFER: usize = 1;

/// Reports the state of this replica, to callers and to watchers.
pub(crate) struct SystemReport {
    store: StoreClient,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    demand: Demand,
    replica: String,
    /// Last look for the watchers; nothing while there are none. They are woken by [`News`].
    latest: watch::Sender<Option<Arc<v1::SystemStatus>>>,
    /// Ends the pause without watchers.
    watched: Notify,
}

impl SystemReport {
    pub(crate) fn new(
        store: &StoreClient,
        health: &Arc<Health>,
        metrics: &Arc<Metrics>,
        demand: &Demand,
        replica: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            health: Arc::clone(health),
            metrics: Arc::clone(metrics),
            demand: demand.clone(),
            replica,
            latest: watch::channel(None).0,
            watched: Notify::new(),
        })
    }

    /// Looks for the watchers, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut changes = self.demand.scheduler.changed().subscribe();
        let look = async {
            let mut sent: Option<(Arc<v1::SystemStatus>, Instant)> = None;
            // Whether those who began to watch meanwhile may have other numbers than those that were sent.
            let mut unsent = false;
            loop {
                if self.latest.receiver_count() == 0 {
                    self.latest.send_replace(None);
                    (sent, unsent) = (None, false);
                    self.watched.notified().await;
                }
                let status = Arc::new(self.status().await);
                let is_due = sent.as_ref().is_none_or(|(last, at)| match News::between(last, &status) {
                    News::Problem => true,
                    news => {
                        unsent |= matches!(news, News::Numbers);
                        unsent && at.elapsed() >= NUMBERS_INTERVAL
                    }
                });
                self.latest.send_if_modified(|latest| {
                    // Also without a wake-up: further watchers begin with the numbers of now.
                    *latest = Some(Arc::clone(&status));
                    is_due
                });
                if is_due {
                    (sent, unsent) = (Some((status, Instant::now())), false);
                }
                tokio::time::sleep(WATCH_INTERVAL).await;
                let next = async {
                    tokio::select! {
                        _ = changes.changed() => {}
                        // Who begins to watch sees what is true now.
                        () = self.watched.notified() => {}
                    }
                };
                let _ = timeout(LOOK_INTERVAL - WATCH_INTERVAL, next).await;
            }
        };
        stop.run_until_cancelled(look).await;
    }

    /// Sends the state now, then whenever a problem begins, changes or ends, and from time to time if its numbers have changed.
    pub(super) fn watch(&self, streams: &Streams) -> ReceiverStream<Result<v1::SystemStatus, Status>> {
        let mut latest = self.latest.subscribe();
        self.watched.notify_one();
        streams.serve("watch-system-status", STREAM_BUFFER, move |outbox| async move {
            loop {
                let status = latest.borrow_and_update().clone();
                if let Some(status) = status {
                    let server_time = Some(time::timestamp(now()));
                    let status = v1::SystemStatus { server_time, ..v1::SystemStatus::clone(&status) };
                    send(&outbox, status).await?;
                }
                let changed = latest.changed().await;
                changed.map_err(|_| Status::unavailable("the control plane has stopped"))?;
            }
        })
    }

    pub(super) async fn status(&self) -> v1::SystemStatus {
        let (check, causes) = self.health.diagnose().await;
        let state = health::worst(&causes).to_wire();
        let to_wire = |cause: Cause| v1::Cause {
            code: cause.code.to_owned(),
            message: cause.message,
            hint: cause.hint,
        };
        v1::SystemStatus {
            state: state.into(),
            causes: causes.into_iter().map(to_wire).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replica: self.replica.clone(),
            start_time: Some(time::timestamp(self.health.started)),
            store: Some(self.store(&check)),
            counts: Some(self.counts(&check).await),
            background_tasks: self.background_tasks(),
            breakers: breaker::all(&self.demand.breakers),
            replicas: self.replicas(&check).await,
            // Last: callers compare it with their clock when the response arrives.
            server_time: Some(time::timestamp(now())),
        }
    }

    fn store(&self, check: &StoreCheck) -> v1::StoreStatus {
        let health = &self.health;
        v1::StoreStatus {
            available: check.problem.is_none(),
            latency: Some(time::duration(check.latency)),
            last_commit_time: health.last_commit().map(time::timestamp),
            write_error: health.write_error().map(|(message, _)| message).unwrap_or_default(),
            space: self.store.space().map(|space| v1::StoreSpace {
                size_bytes: num::to_i64(space.size),
                reusable_bytes: num::to_i64(space.reusable),
                free_bytes: num::to_i64(space.free),
                volume_bytes: num::to_i64(space.volume),
            }),
        }
    }

    pub(super) fn background_tasks(&self) -> Vec<v1::BackgroundTask> {
        let to_wire = |seen: background_tasks::BackgroundTaskStatus| v1::BackgroundTask {
            name: seen.name.to_owned(),
            description: seen.description.to_owned(),
            state: match seen.state {
                background_tasks::BackgroundTaskState::Idle => BackgroundTaskState::Idle,
                background_tasks::BackgroundTaskState::Running => BackgroundTaskState::Running,
                background_tasks::BackgroundTaskState::Failing => BackgroundTaskState::Failing,
                background_tasks::BackgroundTaskState::Stuck => BackgroundTaskState::Stuck,
                background_tasks::BackgroundTaskState::Stopped => BackgroundTaskState::Stopped,
            }
            .into(),
            last_success_time: seen.last_success.map(|at| time::timestamp(Timestamp(at))),
            succeeded: num::to_i64(seen.succeeded),
            failed: num::to_i64(seen.failed),
            error: seen.error,
        };
        self.health.background_tasks().into_iter().map(to_wire).collect()
    }

    async fn replicas(&self, check: &StoreCheck) -> Vec<v1::Replica> {
        if check.problem.is_some() {
            return Vec::new();
        }
        let known = timeout(health::STORE_TIMEOUT, self.store.reads().replicas()).await;
        let known = known.ok().and_then(Result::ok).unwrap_or_default();
        let to_wire = |replica: rota_store::Replica| v1::Replica {
            name: replica.name,
            version: replica.version,
            address: replica.address,
            owner: replica.owner,
            lease: Some(time::duration(replica.lease)),
        };
        known.into_iter().map(to_wire).collect()
    }

    async fn counts(&self, check: &StoreCheck) -> v1::SystemCounts {
        let snapshot = self.demand.conditions().await;
        let (workers, queues) = (&snapshot.view.workers, &snapshot.view.queues);
        let on_workers = self.metrics.on_workers();
        let at = |state| num::to_i64(on_workers.get(&state).copied().unwrap_or_default());
        // A store that failed its check is not queried again.
        let pending = match check.problem {
            Some(_) => None,
            None => timeout(health::STORE_TIMEOUT, self.store.reads().stats(Vec::new()))
                .await
                .ok()
                .and_then(Result::ok),
        };
        v1::SystemCounts {
            workers: num::to_i32(workers.len()),
            sessions: num::to_i32(workers.iter().filter(|worker| worker.connected).count()),
            pending_tasks: num::to_i64(pending.map_or(0, |stats| stats.pending)),
            queued_tasks: num::to_i64(queues.iter().map(|(_, _, count)| *count).sum::<u64>()),
            assigned_tasks: at(TaskState::Assigned),
            running_tasks: at(TaskState::Running),
            input_required_tasks: at(TaskState::InputRequired),
        }
    }
}
