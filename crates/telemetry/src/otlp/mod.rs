//! Endpoints and transports of OTLP: what the `OTEL_EXPORTER_OTLP_*` variables configure, and HTTP to a collector. Must
//! not know what is sent: spans and metrics have exporters of their own.

mod http;
mod settings;

use opentelemetry_sdk::Resource;
use tokio::runtime::Handle;

pub(crate) use self::http::HttpTransport;
pub(crate) use self::settings::Target;
pub use self::settings::{Error, Protocol, Settings};
use crate::env;

/// Starts the thread and runtime that send to the collector. Its own, so that a flush never waits for a runtime whose
/// only thread waits for the flush. It ends with the process.
pub(crate) fn start_runtime() -> Result<Handle, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("rota-otlp".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// Builds the resource of this process. `OTEL_SERVICE_NAME` overrides `service`.
pub(crate) fn resource(service: &'static str) -> Resource {
    let resource = Resource::builder();
    if env::var("OTEL_SERVICE_NAME").is_some() {
        return resource.build();
    }
    resource.with_service_name(service).build()
}
