//! What an exit means. Pure.

use rota_proto::v1::{CommandRuntime, Failure, FailureClass, TaskResult};

use crate::runtimes::context::Written;
use crate::runtimes::{Ending, Outcome, failure};
use crate::supervise::{Error, Exit};

/// Bytes of what the program printed last, in a failure's message.
const MAX_LAST_WORDS: usize = 1 << 10;

/// The program was not even started, or its supervisor was not.
pub(super) fn not_started(error: &Error) -> Outcome {
    let class = match error {
        Error::Start { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => FailureClass::Start,
            _ if source.raw_os_error() == Some(nix::libc::ENOEXEC) => FailureClass::Start,
            // Too many processes, no memory: another try, perhaps elsewhere, may go well.
            _ => FailureClass::Environment,
        },
        Error::Lost(_) => FailureClass::Crash,
    };
    Outcome::failed(class, error.to_string())
}

/// How an attempt ended whose program ended by itself. What it printed is without secrets: a part of it is told.
pub(super) fn ending(
    spec: &CommandRuntime,
    exit: Exit,
    said: Option<TaskResult>,
    written: Option<Written>,
    stdout: &[u8],
    stderr: &[u8],
) -> Ending {
    let failed = |class, text: String| {
        let failed = failure(class, text);
        Ending::Failed(Failure { exit_code: exit.code, signal: exit.signal, ..failed })
    };
    match exit.code {
        Some(0) => match written {
            Some(written) if !written.success => failed(
                FailureClass::Agent,
                if written.summary.is_empty() {
                    "it wrote that it failed".to_owned()
                } else {
                    written.summary
                },
            ),
            written => {
                let result = said.or_else(|| written.map(Written::into_result)).unwrap_or_default();
                let text = if result.text.is_empty() && result.data.is_none() {
                    String::from_utf8_lossy(stdout).trim_end().to_owned()
                } else {
                    result.text
                };
                Ending::Succeeded(TaskResult { text, exit_code: exit.code, ..result })
            }
        },
        Some(code) => failed(class(spec, code), with_last_words(format!("exit code {code}"), stdout, stderr)),
        None => {
            let signal = exit.signal.unwrap_or_default();
            failed(FailureClass::Crash, with_last_words(format!("ended by signal {signal}"), stdout, stderr))
        }
    }
}

/// Classes carry the recovery: `AGENT` is tried again, `INVALID` is not.
fn class(spec: &CommandRuntime, code: i32) -> FailureClass {
    if spec.fatal_exit_codes.contains(&code) {
        FailureClass::Invalid
    } else if spec.retry_exit_codes.contains(&code) {
        FailureClass::Agent
    } else if matches!(code, 126 | 127) {
        // What a shell says of a program that cannot be run, or is not there.
        FailureClass::Start
    } else {
        FailureClass::Agent
    }
}

fn with_last_words(text: String, stdout: &[u8], stderr: &[u8]) -> String {
    let from = if stderr.trim_ascii().is_empty() { stdout } else { stderr };
    let from = from.trim_ascii();
    let words = String::from_utf8_lossy(&from[from.len().saturating_sub(MAX_LAST_WORDS)..]);
    if words.is_empty() { text } else { format!("{text}: {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit { code: Some(code), signal: None, strays: 0 }
    }

    fn class_of(ending: Ending) -> FailureClass {
        match ending {
            Ending::Failed(failed) => failed.class(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn codes_have_classes() {
        let spec = CommandRuntime {
            retry_exit_codes: vec![75, 127],
            fatal_exit_codes: vec![65],
            ..CommandRuntime::default()
        };
        let ended = |exit| class_of(ending(&spec, exit, None, None, b"", b""));
        assert_eq!(ended(exit(1)), FailureClass::Agent);
        assert_eq!(ended(exit(65)), FailureClass::Invalid);
        assert_eq!(ended(exit(75)), FailureClass::Agent);
        assert_eq!(ended(exit(126)), FailureClass::Start);
        assert_eq!(ended(exit(127)), FailureClass::Agent);
        let crashed = Exit { code: None, signal: Some(11), strays: 0 };
        assert_eq!(ended(crashed), FailureClass::Crash);
    }

    #[test]
    fn the_result_is_what_was_said_then_what_was_written_then_the_output() {
        let spec = CommandRuntime::default();
        let written = || serde_json::from_str(r#"{"summary":"written"}"#).ok();
        let said = TaskResult { text: "said".to_owned(), ..TaskResult::default() };
        let text = |said, written| match ending(&spec, exit(0), said, written, b"printed\n", b"") {
            Ending::Succeeded(result) => result.text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(Some(said), written()), "said");
        assert_eq!(text(None, written()), "written");
        assert_eq!(text(None, None), "printed");
        let refused = serde_json::from_str(r#"{"success":false,"summary":"no"}"#).ok();
        assert_eq!(class_of(ending(&spec, exit(0), None, refused, b"", b"")), FailureClass::Agent);
    }
}
