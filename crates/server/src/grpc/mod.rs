//! The public services, a file each. They check, ask the store, and tell; they decide nothing.

mod agents;
mod answers;
mod create;
mod demand;
mod drain;
pub(crate) mod ending;
mod explain;
mod feed;
mod follow;
mod pools;
mod tasks;
pub(crate) mod traced;

use rota_proto::v1::agent_service_server::AgentServiceServer;
use rota_proto::v1::task_service_server::TaskServiceServer;
use rota_proto::worker::v1::worker_service_server::WorkerServiceServer;

pub(crate) use agents::Agents;
pub(crate) use tasks::Tasks;

/// Health of each service (`grpc.health.v1`).
pub(crate) async fn health()
-> tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_serving::<TaskServiceServer<Tasks>>().await;
    reporter.set_serving::<AgentServiceServer<Agents>>().await;
    reporter.set_serving::<WorkerServiceServer<crate::sessions::Service>>().await;
    service
}

/// The API's own description, for tools such as grpcurl.
pub(crate) fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    String,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(rota_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| error.to_string())
}
