//! `grpc.health.v1`: whether each service can be called. All of them need the store, so that they stand and fall
//! together; the empty name is the server as a whole.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use rota_proto::v1::admin_service_server::AdminServiceServer;
use rota_proto::v1::agent_service_server::AgentServiceServer;
use rota_proto::v1::task_service_server::TaskServiceServer;
use rota_proto::worker::v1::worker_service_server::WorkerServiceServer;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::{Admin, Agents, Tasks};
use crate::sessions;
use crate::shared::Shared;
use crate::wire::status::error;

/// Every service that can be asked about.
const SERVICES: &[&str] = &[
    "",
    TaskServiceServer::<Tasks>::NAME,
    AgentServiceServer::<Agents>::NAME,
    AdminServiceServer::<Admin>::NAME,
    WorkerServiceServer::<sessions::Service>::NAME,
];
/// Between two looks for somebody who watches.
const EVERY: Duration = Duration::from_secs(2);

pub(crate) struct Health {
    pub(crate) shared: Arc<Shared>,
}

async fn serving(shared: &Shared) -> ServingStatus {
    match shared.not_ready().await.is_empty() {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(answer(serving(&self.shared).await)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let (outbox, stream) = mpsc::channel(1);
        let shared = Arc::clone(&self.shared);
        spawn("watch-health", OnExit::Done, async move {
            let mut told = None;
            loop {
                let now = if known { serving(&shared).await } else { ServingStatus::ServiceUnknown };
                if told.replace(now) != Some(now) && outbox.send(Ok(answer(now))).await.is_err() {
                    return;
                }
                if shared.stop.is_cancelled() {
                    let _ = outbox.send(Err(error("STOPPING", "the control plane is stopping"))).await;
                    return;
                }
                tokio::select! {
                    () = outbox.closed() => return,
                    () = shared.stop.cancelled() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
