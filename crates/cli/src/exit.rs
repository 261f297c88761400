//! Exit codes, and the rendering of errors as `error:`, `cause:` and `hint:` lines. The codes are documented
//! in `rota --help` and are stable.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitCode;

use rota_client::Code;

use crate::output::Reporter;

/// Exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Ok = 0,
    /// A task failed, or another error occurred.
    Failed = 1,
    /// The command line or the configuration is invalid.
    Usage = 2,
    Cancelled = 3,
    /// A named resource does not exist.
    NotFound = 4,
    /// The server is unreachable or denies access.
    Unreachable = 5,
    Timeout = 6,
    /// Ctrl-C ended the command; tasks continue.
    Interrupted = 130,
}

/// Error with an exit code and, where there is one, a hint how to resolve it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// All problems, if there are several.
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

/// Runs a command on a new async runtime.
pub fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // A pending read of standard input must not keep the program alive.
    runtime.shutdown_background();
    result
}

/// Reports an error, if any, and returns the exit code.
pub fn finish(reporter: &Reporter, result: anyhow::Result<Exit>) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        if is_broken_pipe(&error) {
            // The reader closed the pipe, as in `rota get tasks | head -1`.
            return Exit::Ok;
        }
        report(reporter, &error);
        classify(&error)
    });
    ExitCode::from(exit as u8)
}

fn report(reporter: &Reporter, error: &anyhow::Error) {
    let (first, causes, hints) = lines(error);
    reporter.error(&first);
    causes.iter().for_each(|cause| reporter.cause(cause));
    hints.iter().for_each(|hint| reporter.hint(hint));
}

/// Returns the error, its causes and its hints. Some errors repeat the message of their source, and fields that
/// of the error: a cause without a word of its own is left out.
fn lines(error: &anyhow::Error) -> (String, Vec<String>, Vec<String>) {
    let first = error.to_string();
    let mut seen = BTreeSet::new();
    let mut adds = |text: &String| words(text).filter(|word| seen.insert(word.clone())).count() > 0;
    adds(&first);
    let mut causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).filter(&mut adds).collect();
    let mut hints = Vec::new();
    if let Some(remote) = error.chain().find_map(|cause| cause.downcast_ref::<rota_client::Error>()) {
        let fields = remote.fields.iter().map(|field| format!("{}: {}", field.field, field.message));
        causes.extend(fields.filter(&mut adds));
        hints.extend(remote.hint.clone());
    }
    if let Some(server) = error.chain().find_map(|cause| cause.downcast_ref::<rota_server::Error>()) {
        hints.extend(server.hint().map(str::to_owned));
    }
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        // A list of problems is reported completely.
        causes.extend(failure.causes.iter().cloned());
        hints.extend(failure.hint.clone());
    }
    (first, causes, hints)
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    text.split_whitespace().map(bare).filter(|word| !word.is_empty())
}

/// Returns the exit code for an error.
pub fn classify(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit;
        }
        if let Some(remote) = cause.downcast_ref::<rota_client::Error>() {
            return of(remote);
        }
        match cause.downcast_ref::<rota_client::discover::Error>() {
            Some(rota_client::discover::Error::NoContext { .. }) => return Exit::NotFound,
            Some(_) => return Exit::Usage,
            None => {}
        }
    }
    Exit::Failed
}

/// Returns the exit code for a failed call.
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
    fn outermost_known_cause_sets_exit_code() {
        let error = anyhow::Error::from(Failure::new(Exit::Timeout, "too late")).context("while waiting");
        assert_eq!(classify(&error), Exit::Timeout);
        assert_eq!(classify(&anyhow::anyhow!("x")), Exit::Failed);
        let invalid = rota_client::discover::Error::Config { path: "c".into(), message: "no".into() };
        assert_eq!(classify(&anyhow::Error::from(invalid).context("the server")), Exit::Usage);
        let missing = rota_client::discover::Error::NoContext { name: "x".into(), path: "c".into() };
        assert_eq!(classify(&missing.into()), Exit::NotFound);
        // A failed sync of the store's disk, among others: what manages the process must see a failure.
        let exited = anyhow::Error::from(rota_server::Error::BackgroundTaskExited("commits"));
        assert_eq!(classify(&exited), Exit::Failed);
        assert!(lines(&exited).2.iter().any(|hint| hint.contains("restart the control plane")));
        let pipe: io::Result<()> = Err(io::ErrorKind::BrokenPipe.into());
        assert!(is_broken_pipe(&pipe.context("printing").unwrap_err()));
    }

    #[test]
    fn causes_without_new_words_are_omitted() {
        let causes = |error: &anyhow::Error| lines(error).1;
        let io = || io::Error::other("No such file");
        // Repeated by one message before it, or by several together.
        assert_eq!(causes(&anyhow::Error::from(io()).context("x cannot be read: no such file")), [""; 0]);
        assert_eq!(causes(&anyhow::Error::from(io()).context("no such").context("a file")), ["no such"]);
        assert_eq!(causes(&anyhow::Error::from(io()).context("x cannot be read")), ["No such file"]);

        let field =
            |field: &str, message: &str| rota_client::Field { field: field.into(), message: message.into() };
        let remote = |message: &str, fields| rota_client::Error {
            code: Code::InvalidArgument,
            message: message.into(),
            reason: None,
            upload_bytes: None,
            fields,
            hint: None,
            lost: false,
        };
        let one = remote("task.priority: must be low", vec![field("task.priority", "must be low")]);
        assert_eq!(causes(&one.clone().into()), [""; 0]);
        assert_eq!(causes(&anyhow::Error::from(one).context("no")), ["task.priority: must be low"]);
        let place = remote("agent a does not exist", vec![field("spec.agent", "agent a does not exist")]);
        assert_eq!(causes(&place.into()), ["spec.agent: agent a does not exist"]);
        let list = vec!["f:1: wrong".to_owned(), "f:1: wrong".to_owned()];
        assert_eq!(causes(&Failure::usage("f:1: wrong").causes(list.clone()).into()), list);
    }
}
