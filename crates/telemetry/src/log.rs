//! Logs: to stderr, for people or as JSON lines; stdout belongs to data.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

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

/// The filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the log filter {filter:?} cannot be read: {source}")]
pub struct Error {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for this process. A second call changes nothing.
pub fn init(options: &Options) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|source| Error { filter: options.filter.clone(), source })?;
    let colours = std::io::stderr().is_terminal() && crate::env::var("NO_COLOR").is_none();
    let layer = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // Only a subscriber that is already there makes this fail, and then it stays.
    let _ = match options.format {
        Format::Text => layer.with_target(false).try_init(),
        Format::Json => layer.json().flatten_event(true).try_init(),
    };
    Ok(())
}
