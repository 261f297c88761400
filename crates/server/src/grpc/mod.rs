//! The public services, a file each. They check, ask the store, and tell; they decide nothing.

mod admin;
mod agents;
mod answers;
mod create;
mod demand;
mod drain;
pub(crate) mod ending;
mod explain;
mod feed;
mod follow;
mod health;
mod pools;
mod tasks;
pub(crate) mod traced;

use std::sync::Arc;

use tonic_health::pb::health_server::HealthServer;

use crate::shared::Shared;

pub(crate) use admin::Admin;
pub(crate) use agents::Agents;
pub(crate) use tasks::Tasks;

/// Health of each service (`grpc.health.v1`).
pub(crate) fn health(shared: &Arc<Shared>) -> HealthServer<impl tonic_health::pb::health_server::Health> {
    HealthServer::new(health::Health { shared: Arc::clone(shared) })
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
