//! `AdminService`: the control plane itself.

use std::sync::Arc;

use rota_core::task::State as TaskState;
use rota_proto::v1::admin_service_server::AdminService;
use rota_proto::v1::{self, SystemState};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::health::{self, State, StoreSeen};
use crate::shared::{Shared, now};
use crate::wire::time;

pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
}

impl Admin {
    fn store(&self, seen: &StoreSeen) -> v1::StoreStatus {
        let health = &self.shared.health;
        v1::StoreStatus {
            answers: seen.wrong.is_none(),
            latency: Some(time::duration(seen.took)),
            last_commit_time: health.last_commit().map(time::timestamp),
            write_error: health.write_error().map(|(message, _)| message).unwrap_or_default(),
        }
    }

    async fn counts(&self, seen: &StoreSeen) -> v1::SystemCounts {
        let shared = &self.shared;
        let workers = shared.fleet.workers();
        let small = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let large = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let on_workers = shared.metrics.on_workers();
        let at = |state| large(on_workers.get(&state).copied().unwrap_or_default());
        // One that did not answer just now is not asked again.
        let pending = match seen.wrong {
            Some(_) => None,
            None => timeout(health::STORE, shared.store.figures(Vec::new())).await.ok().and_then(Result::ok),
        };
        v1::SystemCounts {
            workers: small(workers.len()),
            sessions: small(workers.iter().filter(|worker| worker.connected).count()),
            pending_tasks: large(pending.map_or(0, |figures| figures.pending)),
            queued_tasks: large(shared.fleet.waiting().iter().map(|(_, count)| count).sum()),
            assigned_tasks: at(TaskState::Assigned),
            running_tasks: at(TaskState::Running),
            input_required_tasks: at(TaskState::InputRequired),
        }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_system_status(
        &self,
        _: Request<v1::GetSystemStatusRequest>,
    ) -> Result<Response<v1::SystemStatus>, Status> {
        let (seen, causes) = self.shared.diagnose().await;
        let state = match health::worst(&causes) {
            State::Healthy => SystemState::Healthy,
            State::Degraded => SystemState::Degraded,
            State::Error => SystemState::Error,
        };
        let causes = causes.into_iter().map(|cause| v1::Cause {
            code: cause.code.to_owned(),
            message: cause.message,
            hint: cause.hint,
        });
        Ok(Response::new(v1::SystemStatus {
            state: state.into(),
            causes: causes.collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replica: self.shared.replica.clone(),
            start_time: Some(time::timestamp(self.shared.health.started)),
            store: Some(self.store(&seen)),
            counts: Some(self.counts(&seen).await),
            // Last: whoever compares clocks reckons with the time of the answer.
            server_time: Some(time::timestamp(now())),
        }))
    }
}
