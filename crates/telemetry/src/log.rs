//! Logging to stderr, as text or JSON lines; stdout is for data. The filter can be changed while the process runs.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::redact;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Text lines, colored on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Directives such as `info` or `rota_server=debug,info`.
    pub filter: String,
    pub format: Format,
}

/// Stderr with secrets redacted. Receives each log entry in one piece.
struct RedactedStderr;

impl io::Write for RedactedStderr {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        io::Write::write_all(&mut io::stderr(), &redact::bytes(entry))?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut io::stderr())
    }
}

/// Error for an invalid filter.
#[derive(Debug, thiserror::Error)]
#[error("invalid log filter {filter:?}: {source}")]
pub struct Error {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// The active filter, and the handle that replaces it.
struct ActiveFilter {
    filter: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

static ACTIVE_FILTER: OnceLock<ActiveFilter> = OnceLock::new();

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error { filter: filter.to_owned(), source })
}

/// Installs the subscriber of this process. Only the first call has an effect.
pub fn init(options: &Options) -> Result<(), Error> {
    let (filter, handle) = reload::Layer::new(parse(&options.filter)?);
    let colors = std::io::stderr().is_terminal() && crate::env::var("NO_COLOR").is_none();
    let layer = fmt::layer().with_writer(|| RedactedStderr).with_ansi(colors);
    let layer = match options.format {
        Format::Text => layer.with_target(false).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    // Fails only if a subscriber is installed already, which then stays.
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        let _ = ACTIVE_FILTER.set(ActiveFilter { filter: Mutex::new(options.filter.clone()), handle });
    }
    Ok(())
}

/// Returns the active filter, or `None` if [`init`] did not install the subscriber.
pub fn filter() -> Option<String> {
    ACTIVE_FILTER.get().map(|active| active.filter.lock().clone())
}

/// Replaces the active filter. Returns whether it could: only the subscriber that [`init`] installed has one.
pub fn set_filter(filter: &str) -> Result<bool, Error> {
    let parsed = parse(filter)?;
    let Some(active) = ACTIVE_FILTER.get() else { return Ok(false) };
    // Locked over both steps, so that concurrent calls leave the filter that is reported in effect.
    let mut current = active.filter.lock();
    let replaced = active.handle.reload(parsed).is_ok();
    if replaced {
        filter.clone_into(&mut current);
    }
    Ok(replaced)
}
