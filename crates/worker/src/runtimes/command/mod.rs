//! Runtime for any program: its output becomes events, its exit code the outcome. Progress, usage and
//! structured results come through a side channel or a result file.

mod exit;
mod once;
mod output;
mod side_channel;

use async_trait::async_trait;
use rota_proto::v1::{CommandRuntime, FailureClass, OutputStream, Severity, event, runtime};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Attempt, Channels, CheckpointFolder, RunOutcome, RunReport, Runtime, context};
use crate::layout::CHECKPOINT;
use crate::report::notice;
use crate::supervise::{self, Program, stopped};
pub(crate) use once::{Ended, Ran, run_once};
use output::{Budget, forward};

/// Environment variable with the path of the side channel.
pub const EVENTS_VAR: &str = "ROTA_EVENTS";

#[derive(Debug, Default, Clone, Copy)]
pub struct Command;

impl Command {
    /// Creates the runtime, which has no settings.
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Runtime for Command {
    async fn run(&self, attempt: &Attempt, channels: &mut Channels) -> RunReport {
        let Some(spec) = spec(attempt) else {
            return RunReport::failed(FailureClass::Invalid, "the task's runtime is not `command`");
        };
        let Some((program, args)) = program(&spec) else {
            return RunReport::failed(FailureClass::Invalid, "neither `argv` nor `shell` is set");
        };
        Box::pin(execute(attempt, channels, spec, program, args)).await
    }

    fn checkpoint(&self, attempt: &Attempt) -> Option<CheckpointFolder> {
        let root = attempt.scratch.clone();
        Some(CheckpointFolder { root, within: CHECKPOINT.into(), ..CheckpointFolder::default() })
    }
}

fn spec(attempt: &Attempt) -> Option<CommandRuntime> {
    match attempt.assign.spec.as_ref()?.runtime.as_ref()?.kind.as_ref()? {
        runtime::Kind::Command(spec) => Some(spec.clone()),
        _ => None,
    }
}

/// Returns the program and its arguments, if the spec names one.
fn program(spec: &CommandRuntime) -> Option<(String, Vec<String>)> {
    if !spec.shell.is_empty() {
        return Some(("/bin/sh".to_owned(), vec!["-c".to_owned(), spec.shell.clone()]));
    }
    let (program, args) = spec.argv.split_first()?;
    (!program.is_empty()).then(|| (program.clone(), args.to_vec()))
}

async fn execute(
    attempt: &Attempt,
    channels: &mut Channels,
    spec: CommandRuntime,
    program: String,
    args: Vec<String>,
) -> RunReport {
    let Attempt { assign, workspace, scratch, environment, redactor, .. } = attempt;
    let Channels { events, inputs, stop, .. } = channels;
    let events = &*events;
    let mut environment = environment.clone();
    let side = match side_channel::SideChannel::open(scratch) {
        Ok(side) => side,
        Err(error) => {
            let text = format!("failed to prepare the scratch directory: {error}");
            return RunReport::failed(FailureClass::Environment, text);
        }
    };
    environment.0.insert(EVENTS_VAR.to_owned(), side.path().to_string_lossy().into_owned());
    let prompt = assign.spec.as_ref().map(|spec| spec.prompt.as_str()).unwrap_or_default();
    let stdin = spec.stdin.as_deref().unwrap_or(prompt);

    let started = Program { program, args, environment, directory: workspace.clone() };
    let mut running = match supervise::start(started).await {
        Ok(running) => running,
        Err(error) => return exit::not_started(&error),
    };
    let (budget, closed) = (Budget::default(), CancellationToken::new());
    let (stdout, stderr, input) = (running.stdout.take(), running.stderr.take(), running.stdin.take());
    let outcome = async {
        let _closed = closed.clone().drop_guard();
        tokio::select! {
            exit = running.wait() => exit.map(|exit| (exit, None)),
            stop = stopped(stop) => running.end(stop.grace).await.map(|(exit, by)| (exit, Some(by))),
        }
    };
    let (ended, stdout, stderr, side_output, (), ()) = tokio::join!(
        outcome,
        forward(stdout, OutputStream::Stdout, events, &budget, redactor),
        forward(stderr, OutputStream::Stderr, events, &budget, redactor),
        side.listen(events, &closed),
        feed(input, stdin.as_bytes()),
        refuse(inputs, events, &closed),
    );
    let (exit, by) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            return RunReport {
                usage: side_output.usage,
                ..RunReport::failed(FailureClass::Crash, error.to_string())
            };
        }
    };
    if exit.orphans > 0 {
        let text = format!("processes that outlived the program were killed: {}", exit.orphans);
        let _ = events.send(notice(Severity::Low, "orphans", text)).await;
    }
    let outcome = match (by, context::read(scratch).await) {
        (Some(by), _) => RunOutcome::Stopped { by: by.as_str() },
        (None, Ok(written)) => exit::outcome(&spec, exit, side_output.result, written, &stdout, &stderr),
        (None, Err(error)) => exit::unreadable_result(&spec, exit, &error, &stdout, &stderr),
    };
    RunReport { usage: side_output.usage, ..RunReport::new(outcome) }
}

/// Writes the program's standard input. A program may exit without reading all of it.
async fn feed(stdin: Option<ChildStdin>, bytes: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(bytes).await;
    }
}

/// Rejects input while the program runs: its standard input is complete at the start.
async fn refuse(
    inputs: &mut mpsc::Receiver<rota_proto::v1::TaskInput>,
    events: &mpsc::Sender<event::Kind>,
    closed: &CancellationToken,
) {
    while let Some(Some(_)) = closed.run_until_cancelled(inputs.recv()).await {
        let text = "input ignored: a `command` task accepts none while it runs";
        let _ = events.send(notice(Severity::Low, "input_ignored", text)).await;
    }
}
