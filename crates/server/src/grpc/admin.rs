//! `AdminService`: the control plane itself.

use std::sync::Arc;

use rota_core::Timestamp;
use rota_core::breaker::{Breaker, State as BreakerState};
use rota_core::task::State as TaskState;
use rota_proto::names;
use rota_proto::v1::admin_service_server::AdminService;
use rota_proto::v1::{self, LoopState, SystemState};
use rota_telemetry::{log, loops};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::breakers;
use crate::health::{self, State, StoreSeen};
use crate::shared::{Shared, now};
use crate::wire::status::{error, invalid};
use crate::wire::{failure, names as wire, time};

/// Longest filter.
const MAX_FILTER: usize = 1024;

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

    fn loops(&self) -> Vec<v1::Loop> {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let told = |seen: loops::Seen| v1::Loop {
            name: seen.name.to_owned(),
            description: seen.help.to_owned(),
            state: match seen.state {
                loops::State::Waiting => LoopState::Waiting,
                loops::State::Working => LoopState::Working,
                loops::State::Failing => LoopState::Failing,
                loops::State::Stuck => LoopState::Stuck,
                loops::State::Ended => LoopState::Ended,
            }
            .into(),
            last_success_time: seen.last_success.map(|at| time::timestamp(Timestamp(at))),
            succeeded: count(seen.succeeded),
            failed: count(seen.failed),
            error: seen.error,
        };
        self.shared.loops.all().into_iter().map(told).collect()
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
            loops: self.loops(),
            breakers: self.shared.breakers.all().into_iter().map(breaker).collect(),
            // Last: whoever compares clocks reckons with the time of the answer.
            server_time: Some(time::timestamp(now())),
        }))
    }

    async fn list_loops(
        &self,
        _: Request<v1::ListLoopsRequest>,
    ) -> Result<Response<v1::ListLoopsResponse>, Status> {
        Ok(Response::new(v1::ListLoopsResponse { loops: self.loops() }))
    }

    async fn get_log_filter(
        &self,
        _: Request<v1::GetLogFilterRequest>,
    ) -> Result<Response<v1::LogFilter>, Status> {
        let filter = log::filter().ok_or_else(not_ours)?;
        Ok(Response::new(v1::LogFilter { filter }))
    }

    async fn set_log_filter(
        &self,
        request: Request<v1::SetLogFilterRequest>,
    ) -> Result<Response<v1::LogFilter>, Status> {
        let filter = request.into_inner().filter;
        if filter.trim().is_empty() {
            return Err(invalid("filter", "is required"));
        }
        if filter.len() > MAX_FILTER {
            return Err(invalid("filter", format!("must have at most {MAX_FILTER} bytes")));
        }
        let before = log::filter();
        if !log::set_filter(&filter).map_err(|error| invalid("filter", error.to_string()))? {
            return Err(not_ours());
        }
        tracing::warn!(filter, before, "what is logged was changed");
        Ok(Response::new(v1::LogFilter { filter }))
    }

    async fn reset_breaker(
        &self,
        request: Request<v1::ResetBreakerRequest>,
    ) -> Result<Response<v1::ResetBreakerResponse>, Status> {
        let key = wire::agent("name", &request.into_inner().name)?;
        let known = self.shared.reset_breaker(&key);
        if known.is_none() && self.shared.agent(&key.0, &key.1).is_none() {
            return Err(super::Agents::missing(&key.1));
        }
        Ok(Response::new(v1::ResetBreakerResponse { breaker: known.map(|known| breaker((key, known))) }))
    }
}

fn breaker((key, breaker): (breakers::Key, Breaker)) -> v1::Breaker {
    let (state, until_time) = match breaker.state() {
        BreakerState::Closed => (v1::BreakerState::Closed, None),
        BreakerState::Open { until } => (v1::BreakerState::Open, Some(time::timestamp(until))),
        BreakerState::HalfOpen { .. } => (v1::BreakerState::HalfOpen, None),
    };
    let class = breaker.last().map(|(class, _)| failure::class(*class));
    v1::Breaker {
        agent: names::agent(key.0.as_str(), &key.1),
        state: state.into(),
        failures: i32::try_from(breaker.failures()).unwrap_or(i32::MAX),
        failure_class: class.unwrap_or_default().into(),
        message: breaker.last().map(|(_, message)| message.clone()).unwrap_or_default(),
        until_time,
    }
}

/// A part of another program, whose log is that program's.
fn not_ours() -> Status {
    error("LOG_NOT_OURS", "this control plane runs in a program that sees to the log by itself")
}
