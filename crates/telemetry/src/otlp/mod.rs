//! The way to a collector, for spans and figures alike: OTLP, set up by the `OTEL_` variables of the specification. It
//! has a thread and a runtime of its own, so that flushing cannot wait for a runtime that waits for the flush.

mod http;
mod settings;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry_sdk::Resource;
use tokio::runtime::Handle;

pub(crate) use self::http::Http;
pub(crate) use self::settings::Target;
pub use self::settings::{Error, Protocol, Settings};
use crate::{env, metrics, traces};

/// Longest wait for what is still to be sent when a process ends.
pub const FLUSH: Duration = Duration::from_secs(5);

/// Begins to send what the settings ask for. A second call changes nothing.
pub fn init(settings: &Settings) -> Result<(), Error> {
    static BEGUN: OnceLock<()> = OnceLock::new();
    if (settings.traces.is_none() && settings.metrics.is_none()) || BEGUN.set(()).is_err() {
        return Ok(());
    }
    let runtime = runtime()?;
    let resource = resource(settings.service);
    if let Some(target) = &settings.traces {
        traces::start(target, &resource, &runtime)?;
    }
    if let Some(target) = &settings.metrics {
        metrics::start(target, &resource, &runtime)?;
    }
    Ok(())
}

/// Sends what is left, for at most so long. Blocks.
pub fn flush(limit: Duration) {
    traces::flush(limit);
    metrics::flush(limit);
}

/// Variables by which programs that speak OpenTelemetry send to the same collector, as they were given here. What is
/// secret, such as headers, is not among them: whoever runs a program names that for it.
pub fn for_programs() -> Vec<(String, String)> {
    traces::target().map(Target::for_programs).unwrap_or_default()
}

/// It ends with the process: what it sends is waited for in [`flush`].
pub(crate) fn runtime() -> Result<Handle, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("rota-otlp".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

pub(crate) fn resource(service: &'static str) -> Resource {
    let resource = Resource::builder();
    if env::var("OTEL_SERVICE_NAME").is_some() {
        return resource.build();
    }
    resource.with_service_name(service).build()
}
