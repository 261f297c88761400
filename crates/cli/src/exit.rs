//! How the program ends: its exit codes, and errors as `error:`, `cause:` and `hint:` lines.
//! The codes are documented in `rota --help` and stay as they are.

use std::io;
use std::process::ExitCode;

use rota_client::Code;

use crate::output::Talk;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// What was asked for is done.
    Ok = 0,
    /// A task failed, or anything else went wrong.
    Failed = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// A task was cancelled.
    Cancelled = 3,
    /// There is no such thing.
    NotFound = 4,
    /// No server, or it does not let us in.
    Unreachable = 5,
    /// What was waited for did not come in time.
    Timeout = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

/// A failure with a way to end and, perhaps, something to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// Everything that is wrong, where that is more than one thing.
    pub causes: Vec<String>,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn causes(mut self, causes: Vec<String>) -> Self {
        self.causes = causes;
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Runs a command.
pub fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // Whoever still reads from standard input must not keep the program.
    runtime.shutdown_background();
    result
}

/// Says what went wrong, and gives the exit code.
pub fn finish(talk: &Talk, result: anyhow::Result<Exit>) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        if is_broken_pipe(&error) {
            // Whoever read our data has had enough of it, as in `rota get tasks | head -1`.
            return Exit::Ok;
        }
        tell(talk, &error);
        classify(&error)
    });
    ExitCode::from(exit as u8)
}

fn tell(talk: &Talk, error: &anyhow::Error) {
    talk.error(&error.to_string());
    let mut before = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Some errors say their source's sentence too.
        if !before.contains(&text) {
            talk.cause(&text);
        }
        before = text;
    }
    if let Some(remote) = error.chain().find_map(|cause| cause.downcast_ref::<rota_client::Error>()) {
        for field in &remote.fields {
            talk.cause(&format!("{}: {}", field.field, field.message));
        }
        remote.hint.iter().for_each(|hint| talk.hint(hint));
    }
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        failure.causes.iter().for_each(|cause| talk.cause(cause));
        failure.hint.iter().for_each(|hint| talk.hint(hint));
    }
}

fn classify(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit;
        }
        if let Some(remote) = cause.downcast_ref::<rota_client::Error>() {
            return of(remote);
        }
    }
    Exit::Failed
}

/// How a failed call ends the program.
pub fn of(error: &rota_client::Error) -> Exit {
    match error.code {
        _ if error.lost => Exit::Unreachable,
        Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied => Exit::Unreachable,
        Code::NotFound => Exit::NotFound,
        _ => Exit::Failed,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_innermost_known_cause_decides() {
        let error = anyhow::Error::from(Failure::new(Exit::Timeout, "too late")).context("while waiting");
        assert_eq!(classify(&error), Exit::Timeout);
        assert_eq!(classify(&anyhow::anyhow!("x")), Exit::Failed);
        let pipe: io::Result<()> = Err(io::ErrorKind::BrokenPipe.into());
        assert!(is_broken_pipe(&pipe.context("printing").unwrap_err()));
    }
}
