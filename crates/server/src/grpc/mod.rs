//! The public gRPC services, a file each. They validate requests, call the store and convert its replies; they decide
//! nothing.

mod admin;
mod agents;
mod answers;
mod artifacts;
mod browser_sessions;
mod change;
pub(crate) mod deadline;
mod demand;
mod drain;
pub(crate) mod encoded;
pub(crate) mod ending;
mod explain;
mod export_tasks;
mod feed;
mod follow;
mod grants;
mod health;
mod input;
mod kinds;
mod list_tasks;
mod log_text;
mod pools;
mod redelivery;
mod retry;
mod rotation;
mod schedules;
mod search_log;
mod search_tasks;
mod storage;
mod streams;
mod system;
mod system_news;
mod task_filter;
mod tasks;
mod templates;
mod threads;
pub(crate) mod traced;
mod update_task;
mod watch_agents;
mod worker_tokens;
mod workflows;

pub(crate) use admin::Admin;
pub(crate) use agents::Agents;
pub(crate) use artifacts::Service as ArtifactsService;
pub(crate) use browser_sessions::BrowserSessionAdmin;
pub(crate) use explain::Explainer;
pub(crate) use health::HealthService;
pub(crate) use input::Inputs;
pub(crate) use rotation::Rotation;
pub(crate) use schedules::Schedules;
pub(crate) use storage::Storage;
pub(crate) use streams::Streams;
pub(crate) use system::SystemReport;
pub(crate) use tasks::Tasks;
pub(crate) use templates::{Templates, template_at};
pub(crate) use worker_tokens::TokenAdmin;
pub(crate) use workflows::Workflows;

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
