//! `grpc.health.v1`: whether each service can be called. All of them need the store, so that they share one state; the
//! empty name is the server as a whole.

use std::sync::Arc;
use std::time::Duration;

use rota_proto::v1::admin_service_server::AdminServiceServer;
use rota_proto::v1::agent_service_server::AgentServiceServer;
use rota_proto::v1::task_service_server::TaskServiceServer;
use rota_proto::worker::v1::worker_service_server::WorkerServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::streams::{Boxed, send, stopping, stream};
use super::{Admin, Agents, Tasks};
use crate::health::Health;
use crate::sessions;

/// Every service that can be checked.
const SERVICES: &[&str] = &[
    "",
    TaskServiceServer::<Tasks>::NAME,
    AgentServiceServer::<Agents>::NAME,
    AdminServiceServer::<Admin>::NAME,
    WorkerServiceServer::<sessions::Service>::NAME,
];
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) struct HealthService {
    pub(crate) health: Arc<Health>,
    pub(crate) stop: CancellationToken,
}

async fn serving(health: &Health) -> ServingStatus {
    match health.not_ready().await.is_empty() {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    type WatchStream = Boxed<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(response(serving(&self.health).await)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let (health, stop) = (Arc::clone(&self.health), self.stop.clone());
        let watch = stream("watch-health", 1, move |outbox| async move {
            let mut sent = None;
            loop {
                let now = if known { serving(&health).await } else { ServingStatus::ServiceUnknown };
                if sent.replace(now) != Some(now) {
                    send(&outbox, response(now)).await?;
                }
                // Only after NOT_SERVING has been sent.
                if stop.is_cancelled() {
                    return Err(stopping());
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(CHECK_INTERVAL) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(watch)))
    }
}
