//! Mapping from a program's exit to an outcome. Pure.

use rota_proto::v1::{CommandRuntime, Failure, FailureClass, TaskResult};

use crate::report::failure;
use crate::runtimes::context::{self, ResultFile};
use crate::runtimes::{RunOutcome, RunReport};
use crate::supervise::{Error, Exit};

/// Bytes of the program's last output that a failure message contains.
const MAX_EXCERPT_BYTES: usize = 1 << 10;

/// Returns the report for a program that did not start.
pub(super) fn not_started(error: &Error) -> RunReport {
    let class = match error {
        Error::Start { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => FailureClass::Start,
            _ if source.raw_os_error() == Some(nix::libc::ENOEXEC) => FailureClass::Start,
            // Arguments and variables are too long for every machine.
            _ if source.raw_os_error() == Some(nix::libc::E2BIG) => FailureClass::Invalid,
            // Out of processes or memory: a retry may succeed, perhaps elsewhere.
            _ => FailureClass::Environment,
        },
        Error::Lost(_) | Error::Stuck(_) => FailureClass::Crash,
    };
    RunReport::failed(class, error.to_string())
}

/// Returns the outcome of a program that ended by itself. Its output is redacted already, and quoted on failure.
pub(super) fn outcome(
    spec: &CommandRuntime,
    exit: Exit,
    reported: Option<TaskResult>,
    written: Option<ResultFile>,
    stdout: &[u8],
    stderr: &[u8],
) -> RunOutcome {
    let failed = |class, text: String| {
        let failed = failure(class, text);
        RunOutcome::Failed(Failure { exit_code: exit.code, signal: exit.signal, ..failed })
    };
    match exit.code {
        Some(0) => match written {
            Some(written) if !written.success => {
                let reported = written.failure().unwrap_or_default();
                RunOutcome::Failed(Failure { exit_code: exit.code, signal: exit.signal, ..reported })
            }
            written => {
                let result = reported.or_else(|| written.map(ResultFile::into_result)).unwrap_or_default();
                let text = if result.text.is_empty() && result.data.is_none() {
                    String::from_utf8_lossy(stdout).trim_end().to_owned()
                } else {
                    result.text
                };
                RunOutcome::Succeeded(TaskResult { text, exit_code: exit.code, ..result })
            }
        },
        Some(code) => failed(class(spec, code), with_excerpt(format!("exit code {code}"), stdout, stderr)),
        None => {
            let signal = exit.signal.unwrap_or_default();
            failed(FailureClass::Crash, with_excerpt(format!("ended by signal {signal}"), stdout, stderr))
        }
    }
}

/// Returns the outcome of a program whose result file cannot be used. The file may report a failure, so exit code 0 is no
/// success.
pub(super) fn unreadable_result(
    spec: &CommandRuntime,
    exit: Exit,
    error: &str,
    stdout: &[u8],
    stderr: &[u8],
) -> RunOutcome {
    if exit.code != Some(0) {
        return outcome(spec, exit, None, None, stdout, stderr);
    }
    RunOutcome::Failed(Failure { exit_code: exit.code, ..context::unusable(error) })
}

/// Maps an exit code to a class, which implies the recovery: `AGENT` is retried, `INVALID` is not.
fn class(spec: &CommandRuntime, code: i32) -> FailureClass {
    if spec.fatal_exit_codes.contains(&code) {
        FailureClass::Invalid
    } else if spec.retry_exit_codes.contains(&code) {
        FailureClass::Agent
    } else if matches!(code, 126 | 127) {
        // Exit codes of a shell for a program that is not executable, or not found.
        FailureClass::Start
    } else {
        FailureClass::Agent
    }
}

fn with_excerpt(text: String, stdout: &[u8], stderr: &[u8]) -> String {
    let from = if stderr.trim_ascii().is_empty() { stdout } else { stderr };
    let from = from.trim_ascii();
    let excerpt = String::from_utf8_lossy(&from[from.len().saturating_sub(MAX_EXCERPT_BYTES)..]);
    if excerpt.is_empty() { text } else { format!("{text}: {excerpt}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit { code: Some(code), signal: None, orphans: 0 }
    }

    fn class_of(outcome: RunOutcome) -> FailureClass {
        match outcome {
            RunOutcome::Failed(failed) => failed.class(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn exit_codes_map_to_failure_classes() {
        let spec = CommandRuntime {
            retry_exit_codes: vec![75, 127],
            fatal_exit_codes: vec![65],
            ..CommandRuntime::default()
        };
        let ended = |exit| class_of(outcome(&spec, exit, None, None, b"", b""));
        assert_eq!(ended(exit(1)), FailureClass::Agent);
        assert_eq!(ended(exit(65)), FailureClass::Invalid);
        assert_eq!(ended(exit(75)), FailureClass::Agent);
        assert_eq!(ended(exit(126)), FailureClass::Start);
        assert_eq!(ended(exit(127)), FailureClass::Agent);
        let crashed = Exit { code: None, signal: Some(11), orphans: 0 };
        assert_eq!(ended(crashed), FailureClass::Crash);
    }

    #[test]
    fn unreadable_result_file_is_a_failure() {
        let spec = CommandRuntime { fatal_exit_codes: vec![65], ..CommandRuntime::default() };
        let ended = |code| class_of(unreadable_result(&spec, exit(code), "larger than 1 MiB", b"", b""));
        assert_eq!(ended(0), FailureClass::Agent);
        assert_eq!(ended(65), FailureClass::Invalid, "the exit code decides");
    }

    #[test]
    fn side_channel_result_precedes_file_and_output() {
        let spec = CommandRuntime::default();
        let written = || serde_json::from_str(r#"{"summary":"written"}"#).ok();
        let reported = TaskResult { text: "reported".to_owned(), ..TaskResult::default() };
        let text = |reported, written| match outcome(&spec, exit(0), reported, written, b"printed\n", b"") {
            RunOutcome::Succeeded(result) => result.text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(Some(reported), written()), "reported");
        assert_eq!(text(None, written()), "written");
        assert_eq!(text(None, None), "printed");
        let refused = serde_json::from_str(r#"{"success":false,"summary":"no"}"#).ok();
        assert_eq!(class_of(outcome(&spec, exit(0), None, refused, b"", b"")), FailureClass::Agent);
    }
}
