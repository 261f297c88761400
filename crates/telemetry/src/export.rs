//! Lifecycle of the OTLP export: starts the exporters of spans and metrics, and flushes them when the process ends.

use std::sync::OnceLock;
use std::time::Duration;

use crate::otlp::{Error, Settings, resource, start_runtime};
use crate::{metrics, traces};

/// Timeout of the last export when a process ends.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

static CHILD_ENVIRONMENT: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Starts the exporters that `settings` ask for. Only the first call has an effect.
pub fn init(settings: &Settings) -> Result<(), Error> {
    static STARTED: OnceLock<()> = OnceLock::new();
    if (settings.traces.is_none() && settings.metrics.is_none()) || STARTED.set(()).is_err() {
        return Ok(());
    }
    let runtime = start_runtime()?;
    let resource = resource(settings.service);
    if let Some(target) = &settings.traces {
        traces::start(target, &resource, &runtime)?;
        let _ = CHILD_ENVIRONMENT.set(target.child_environment.clone());
    }
    if let Some(target) = &settings.metrics {
        metrics::start(target, &resource, &runtime)?;
    }
    Ok(())
}

/// Exports what is still buffered; `timeout` applies to spans and metrics separately. Blocks.
pub fn flush(timeout: Duration) {
    traces::flush(timeout);
    metrics::flush(timeout);
}

/// Returns the variables by which child processes export to the same collector. Secrets such as headers are not among
/// them.
pub fn child_environment() -> Vec<(String, String)> {
    CHILD_ENVIRONMENT.get().cloned().unwrap_or_default()
}
