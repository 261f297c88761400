//! Logs: to stderr, for people or as JSON lines; stdout belongs to data. What is logged can be changed at any time.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::redact;

/// How logs look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// What to log, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// A filter such as `info` or `rota_server=debug,info`.
    pub filter: String,
    /// How logs look.
    pub format: Format,
}

/// Standard error, without secrets. Each entry comes in one piece.
struct Clean;

impl io::Write for Clean {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        io::Write::write_all(&mut io::stderr(), &redact::own(entry))?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut io::stderr())
    }
}

/// The filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the log filter {filter:?} cannot be read: {source}")]
pub struct Error {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// What is logged now, and the way to change it.
struct Control {
    filter: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error { filter: filter.to_owned(), source })
}

/// Starts logging for this process. A second call changes nothing.
pub fn init(options: &Options) -> Result<(), Error> {
    let (filter, handle) = reload::Layer::new(parse(&options.filter)?);
    let colours = std::io::stderr().is_terminal() && crate::env::var("NO_COLOR").is_none();
    let layer = fmt::layer().with_writer(|| Clean).with_ansi(colours);
    let layer = match options.format {
        Format::Text => layer.with_target(false).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    // Only a subscriber that is already there makes this fail, and then it stays.
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        let _ = CONTROL.set(Control { filter: Mutex::new(options.filter.clone()), handle });
    }
    Ok(())
}

/// What is logged now; `None` if logging was not started here.
pub fn filter() -> Option<String> {
    CONTROL.get().map(|control| control.filter.lock().clone())
}

/// Logs by another filter from now on. Whether logging was started here, so that it could be done.
pub fn set_filter(filter: &str) -> Result<bool, Error> {
    let new = parse(filter)?;
    let Some(control) = CONTROL.get() else { return Ok(false) };
    // Held over both, so that of two changes at once the same one is told and true.
    let mut known = control.filter.lock();
    let done = control.handle.reload(new).is_ok();
    if done {
        filter.clone_into(&mut known);
    }
    Ok(done)
}
