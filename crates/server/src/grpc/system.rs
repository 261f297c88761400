//! What the control plane reports about itself: store, background tasks, replicas, counts.

use rota_core::Timestamp;
use rota_core::task::State as TaskState;
use rota_proto::num;
use rota_proto::v1::{self, BackgroundTaskState};
use rota_telemetry::background_tasks;
use tokio::time::timeout;

use super::admin::Admin;
use crate::health::{self, StoreCheck};
use crate::wire::time;

impl Admin {
    pub(super) fn store(&self, check: &StoreCheck) -> v1::StoreStatus {
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

    pub(super) async fn replicas(&self, check: &StoreCheck) -> Vec<v1::Replica> {
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

    pub(super) async fn counts(&self, check: &StoreCheck) -> v1::SystemCounts {
        let snapshot = self.demand.snapshot().await;
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
