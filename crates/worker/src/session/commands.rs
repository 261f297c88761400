//! Commands that an attempt runs besides its agent: those that prepare its workspace, and those that it must pass to be done.

use std::time::Duration;

use rota_proto::v1::{DoneWhen, Failure, FailureClass, Progress, Severity, WorkspaceCommand, event};
use tokio::sync::Mutex;

use super::handle::AttemptHandle;
use crate::git::{GitError, Pins};
use crate::layout::Scratch;
use crate::report::{failure, notice};
use crate::runtimes::command::{Ended, Ran, run_once};
use crate::runtimes::{Attempt, Channels, Round, RunOutcome, RunReport, Runtime, context};
use crate::supervise::{Environment, Program};
use crate::workspace::AttemptDirs;

/// Time of a command that has none of its own.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Further rounds of tasks that do not set their number.
const ROUNDS: i32 = 3;
/// Bytes of each stream of a failed check that its agent gets.
const MAX_FEEDBACK: usize = 16 << 10;
/// The same in a failure message.
const MAX_EXCERPT: usize = 1 << 10;

/// What an agent gets besides, if it has written a result that it may correct.
const WRITE_AGAIN: &str =
    "\n\nYour result.json was about the work before this. It is removed: write it again when you are done.";

/// Why an agent continues whose work has passed.
const SENT_MEANWHILE: &str = "a message was sent while the checks ran";
/// What it is sent then.
const MESSAGE_FOLLOWS: &str = "The work has passed its checks. While they ran, you were sent a message, which follows: see to it, then finish the \
                               task.";

/// Why a command is not the end of what has to be done.
enum Failed {
    /// It did not succeed: what happened, and its last output.
    Command {
        what: String,
        stdout: String,
        stderr: String,
    },
    Outcome(RunOutcome),
}

/// Returns the files that checks see as they were, if the task has any. Puts the agent's files back, where a worker was lost while
/// others were in their place.
pub(super) async fn pins(attempt: &Attempt, dirs: Option<&AttemptDirs>) -> Result<Option<Pins>, RunOutcome> {
    let done_when = attempt.assign.spec.as_ref().and_then(|spec| spec.done_when.as_ref());
    let patterns = done_when.map(|done_when| done_when.pinned_files.clone()).unwrap_or_default();
    if patterns.is_empty() {
        return Ok(None);
    }
    let repository =
        dirs.and_then(|dirs| Some((dirs.repository.clone()?, dirs.objects()?, dirs.own().to_owned())));
    let Some(((git, base), objects, own)) = repository else {
        let text = "`doneWhen.pinnedFiles` needs a fresh clone: `workspace.git`, without `depth`, `mode` and `cleanup`";
        return Err(RunOutcome::Failed(failure(FailureClass::Invalid, text)));
    };
    let pins = Pins { git, base, patterns, objects, folder: Scratch(&attempt.scratch).pins(), own };
    pins.release().await.map_err(pinning_failed)?;
    Ok(Some(pins))
}

/// Prepares the workspace by the commands of `setup`.
pub(super) async fn set_up(attempt: &Attempt, channels: &mut Channels) -> Result<(), RunOutcome> {
    let commands = attempt.assign.spec.as_ref().map_or(&[][..], |spec| &spec.setup);
    prepare(commands, attempt, channels).await
}

/// Runs commands before the agent, one after the other.
pub(super) async fn prepare(
    commands: &[WorkspaceCommand],
    attempt: &Attempt,
    channels: &mut Channels,
) -> Result<(), RunOutcome> {
    for command in commands {
        run(command, "preparing", attempt, channels).await.map_err(|failed| match failed {
            Failed::Outcome(outcome) => outcome,
            Failed::Command { what, stdout, stderr } => {
                let text = with_excerpt(format!("setup: {what}"), &stdout, &stderr);
                RunOutcome::Failed(failure(FailureClass::Setup, text))
            }
        })?;
    }
    Ok(())
}

/// Runs the agent until its work passes the checks, as often as the task allows. `quiet` is held while files are not the agent's.
pub(super) async fn run_until_done(
    runtime: &dyn Runtime,
    attempt: &mut Attempt,
    channels: &mut Channels,
    handle: &AttemptHandle,
    pins: Option<&Pins>,
    quiet: &Mutex<()>,
) -> RunReport {
    let done_when = attempt.assign.spec.as_ref().and_then(|spec| spec.done_when.clone());
    let Some(done_when) = done_when.filter(|done_when| !done_when.commands.is_empty()) else {
        return runtime.run(attempt, channels).await;
    };
    let rounds = done_when.max_rounds.unwrap_or(ROUNDS);
    let mut round = 0;
    let mut passed: Option<RunReport> = None;
    loop {
        let mut report = runtime.run(attempt, channels).await;
        let is_checked = match report.outcome {
            RunOutcome::Succeeded(_) => true,
            RunOutcome::Failed(_) => passed.is_some(),
            RunOutcome::Stopped { .. } => false,
        };
        if !is_checked {
            return report;
        }
        // Checks have limits of their own.
        handle.stop_silence_clock();
        let checked = check(&done_when, attempt, channels, pins, quiet).await;
        handle.start_silence_clock();
        if let RunOutcome::Failed(failed) = &report.outcome {
            // It may have left the work half changed.
            let Some(passed) = passed.filter(|_| checked.is_ok()) else { return report };
            let text = format!("{SENT_MEANWHILE}, and the round for it failed: {}", failed.message);
            let _ = channels.events.send(notice(Severity::Medium, "message_round_failed", text)).await;
            return RunReport { usage: report.usage.or(passed.usage), ..passed };
        }
        let is_last = round >= rounds || report.conversation.is_empty();
        let (severity, code, what, mut message) = match checked {
            Ok(()) => {
                let text = "the work has passed its checks";
                let _ = channels.events.send(notice(Severity::Low, "checks_passed", text)).await;
                // What a person has sent meanwhile waits for the agent.
                if channels.inputs.is_empty() || is_last {
                    return report;
                }
                passed = Some(report.clone());
                (Severity::Low, "sent_meanwhile", SENT_MEANWHILE.to_owned(), MESSAGE_FOLLOWS.to_owned())
            }
            Err(Failed::Outcome(outcome)) => return RunReport { outcome, ..report },
            Err(Failed::Command { what, stdout, stderr }) if is_last => {
                let text = with_excerpt(format!("the work is not done: {what}"), &stdout, &stderr);
                report.outcome = RunOutcome::Failed(failure(FailureClass::Checks, text));
                return report;
            }
            Err(Failed::Command { what, stdout, stderr }) => {
                let message = feedback(&what, &stdout, &stderr);
                (Severity::Medium, "check_failed", what, message)
            }
        };
        round += 1;
        let text = format!("{what}; the agent continues, round {round} of {rounds}");
        let _ = channels.events.send(notice(severity, code, text)).await;
        if context::remove_result(&attempt.scratch).await {
            message.push_str(WRITE_AGAIN);
        }
        attempt.round = Some(Round { conversation: report.conversation, message, used: report.usage });
    }
}

/// Runs the checks, with the pinned files in their place.
async fn check(
    done_when: &DoneWhen,
    attempt: &Attempt,
    channels: &mut Channels,
    pins: Option<&Pins>,
    quiet: &Mutex<()>,
) -> Result<(), Failed> {
    // A checkpoint would have the pinned files in place of the agent's.
    let _quiet = match pins {
        Some(_) => Some(quiet.lock().await),
        None => None,
    };
    let mut checked = Ok(());
    for command in &done_when.commands {
        // Before each: a command runs the agent's work, which may have changed them.
        let put = match pins {
            Some(pins) => pins.put(&mut channels.stop).await,
            None => Ok(()),
        };
        checked = match put {
            Ok(()) => run(command, "checking", attempt, channels).await,
            Err(error) => Err(Failed::Outcome(pinning_failed(error))),
        };
        if checked.is_err() {
            break;
        }
    }
    if let Some(pins) = pins {
        // Also where the attempt has to end: the files of the agent are what is kept.
        pins.release().await.map_err(|error| Failed::Outcome(pinning_failed(error)))?;
    }
    checked
}

fn pinning_failed(error: GitError) -> RunOutcome {
    match error {
        GitError::Stopped => RunOutcome::Stopped { by: "interrupt" },
        GitError::Failed { failure, .. } => RunOutcome::Failed(failure),
    }
}

async fn run(
    command: &WorkspaceCommand,
    doing: &str,
    attempt: &Attempt,
    channels: &mut Channels,
) -> Result<(), Failed> {
    let line = command.argv.join(" ");
    let step = Progress { step: format!("{doing}: {line}"), ..Progress::default() };
    let _ = channels.events.send(event::Kind::Progress(step)).await;
    let Some((program, args)) = command.argv.split_first() else { return Ok(()) };
    let limit = command.timeout.and_then(|limit| Duration::try_from(limit).ok()).unwrap_or(TIMEOUT);
    let program = Program {
        program: program.clone(),
        args: args.to_vec(),
        environment: environment(command, attempt)
            .map_err(|failed| Failed::Outcome(RunOutcome::Failed(failed)))?,
        directory: attempt.workspace.clone(),
    };
    let Ran { ended, stdout, stderr } =
        run_once(program, limit, &channels.events, &mut channels.stop, &attempt.redactor).await;
    let what = match ended {
        Ended::Exited(exit) => match (exit.code, exit.signal) {
            (Some(0), _) => return Ok(()),
            (Some(code), _) => format!("`{line}` ended with exit code {code}"),
            (None, signal) => format!("`{line}` was ended by signal {}", signal.unwrap_or_default()),
        },
        Ended::TimedOut => format!("`{line}` took longer than {} s", limit.as_secs_f64()),
        Ended::Failed(error) => format!("`{line}`: {error}"),
        Ended::Stopped(by) => return Err(Failed::Outcome(RunOutcome::Stopped { by })),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Err(Failed::Command { what, stdout: text(&stdout), stderr: text(&stderr) })
}

/// Returns the environment of a command: that of the attempt, with no secret that the command does not name.
fn environment(command: &WorkspaceCommand, attempt: &Attempt) -> Result<Environment, Failure> {
    let mut environment = attempt.environment.clone();
    if let Some(missing) = command.secrets.iter().find(|name| !attempt.secret_names.contains(*name)) {
        let text = format!(
            "the command `{}` needs the secret {missing}, which the attempt does not have",
            command.argv.join(" ")
        );
        return Err(failure(FailureClass::Invalid, text));
    }
    environment.0.retain(|name, _| !attempt.secret_names.contains(name) || command.secrets.contains(name));
    Ok(environment)
}

/// Returns what the agent is sent.
fn feedback(what: &str, stdout: &str, stderr: &str) -> String {
    let mut message = format!("The task is not done: {what}. Fix this, then finish the task.");
    for (name, text) in [("stdout", stdout), ("stderr", stderr)] {
        let text = last(text, MAX_FEEDBACK);
        if !text.is_empty() {
            message = format!("{message}\n\n<{name}>\n{text}\n</{name}>");
        }
    }
    message
}

fn with_excerpt(text: String, stdout: &str, stderr: &str) -> String {
    let excerpt = last(if stderr.is_empty() { stdout } else { stderr }, MAX_EXCERPT);
    if excerpt.is_empty() { text } else { format!("{text}: {excerpt}") }
}

/// Returns the end of a text.
fn last(text: &str, most: usize) -> &str {
    let from = text.ceil_char_boundary(text.len().saturating_sub(most));
    &text[from..]
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use rota_proto::v1::{TaskInput, TaskResult, TaskSpec};
    use rota_proto::worker::v1::Assign;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::runtimes::deltas::Deltas;
    use crate::session::attempt::AttemptKey;
    use crate::session::outbox::{Bounds, Outbox};

    /// A runtime that reads its messages from the second round on.
    #[derive(Default)]
    struct Rounds {
        sent: StdMutex<Vec<String>>,
        /// Whether the second round fails.
        fails: bool,
    }

    #[async_trait::async_trait]
    impl Runtime for Rounds {
        async fn run(&self, attempt: &Attempt, channels: &mut Channels) -> RunReport {
            let mut text = attempt.round.as_ref().map(|round| round.message.clone()).unwrap_or_default();
            while attempt.round.is_some()
                && let Ok(input) = channels.inputs.try_recv()
            {
                text = format!("{text}\n{}", input.text);
            }
            let mut sent = self.sent.lock().unwrap();
            sent.push(text);
            let done = match self.fails && attempt.round.is_some() {
                true => RunOutcome::Failed(failure(FailureClass::RateLimit, "limited")),
                false => RunOutcome::Succeeded(TaskResult::default()),
            };
            RunReport { conversation: "c".to_owned(), ..RunReport::new(done) }
        }
    }

    /// Runs an agent that is sent a message after it has finished. Returns what it was sent in each round, and the codes of notices.
    async fn rounds(max_rounds: i32, fails: bool) -> (Vec<String>, Vec<String>) {
        // A command without a program passes.
        let commands = vec![WorkspaceCommand::default()];
        let done_when = DoneWhen { commands, max_rounds: Some(max_rounds), ..DoneWhen::default() };
        let spec = TaskSpec { done_when: Some(done_when), ..TaskSpec::default() };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let mut attempt = Attempt::new(Box::new(assign), Default::default());
        let (events, mut received) = mpsc::channel(64);
        let (sender, inputs) = mpsc::channel(8);
        let (_stop, stop) = watch::channel(None);
        let mut channels = Channels { events, deltas: Deltas::default(), inputs, stop };
        sender.send(TaskInput { text: "in French".to_owned(), ..TaskInput::default() }).await.unwrap();
        let outbox = Outbox::new(std::env::temp_dir(), Bounds::default());
        let key = AttemptKey { task: "task".into(), fence: 1 };
        let handle = AttemptHandle::new(outbox, key, mpsc::unbounded_channel().0);
        let runtime = Rounds { fails, ..Rounds::default() };
        let quiet = Mutex::new(());
        let report = run_until_done(&runtime, &mut attempt, &mut channels, &handle, None, &quiet).await;
        assert!(matches!(report.outcome, RunOutcome::Succeeded(_)), "{report:?}");
        let mut codes = Vec::new();
        while let Ok(kind) = received.try_recv() {
            if let event::Kind::Notice(notice) = kind {
                codes.push(notice.code);
            }
        }
        (runtime.sent.into_inner().unwrap(), codes)
    }

    #[tokio::test]
    async fn messages_during_checks_get_a_round() {
        let (sent, codes) = rounds(1, false).await;
        assert_eq!(sent, ["".to_owned(), format!("{MESSAGE_FOLLOWS}\nin French")]);
        assert_eq!(codes, ["checks_passed", "sent_meanwhile", "checks_passed"]);
        // Without another round, the work counts as it is.
        let (sent, codes) = rounds(0, false).await;
        assert_eq!((sent.len(), codes), (1, vec!["checks_passed".to_owned()]));
        // Nor is it lost with that round.
        let (sent, codes) = rounds(1, true).await;
        assert_eq!((sent.len(), codes[2].as_str()), (2, "message_round_failed"));
    }

    #[test]
    fn feedback_is_the_end_of_both_streams() {
        let message = feedback("`make` ended with exit code 2", &"ä".repeat(MAX_FEEDBACK), "");
        assert!(message.starts_with("The task is not done: `make` ended"), "{message}");
        assert!(message.len() < MAX_FEEDBACK + 200 && message.ends_with("ä\n</stdout>"));
        assert!(!message.contains("stderr"));
    }

    #[test]
    fn commands_get_the_secrets_that_they_name() {
        let variables = [("PATH", "/bin"), ("KEY", "k"), ("TOKEN", "t")];
        let attempt = Attempt {
            environment: Environment(variables.map(|(name, value)| (name.into(), value.into())).into()),
            secret_names: ["KEY", "TOKEN"].map(str::to_owned).into(),
            ..Attempt::new(Box::default(), Default::default())
        };
        let names = |secrets: &[&str]| {
            let secrets = secrets.iter().map(ToString::to_string).collect();
            let command = WorkspaceCommand { argv: vec!["x".into()], secrets, ..Default::default() };
            environment(&command, &attempt)
                .map(|environment| environment.0.into_keys().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names(&[]).unwrap(), "PATH");
        assert_eq!(names(&["TOKEN"]).unwrap(), "PATH TOKEN");
        // A variable that is no secret is none to ask for.
        assert_eq!(names(&["PATH"]).unwrap_err().class(), FailureClass::Invalid);
    }
}
