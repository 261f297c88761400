//! Any program as an agent: its output becomes events, its exit code the outcome; what more it has
//! to say it says by a side channel or a result file.

mod output;
mod side;
mod verdict;

use async_trait::async_trait;
use rota_proto::v1::{CommandRuntime, FailureClass, OutputStream, Severity, event, runtime};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Attempt, Channels, Ending, Outcome, Runtime, context, notice, stopped};
use crate::supervise::{self, Program};
use output::{Budget, pump};

/// Variable that names the side channel.
pub const EVENTS: &str = "ROTA_EVENTS";

/// Runs programs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Command;

impl Command {
    /// The runtime.
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Runtime for Command {
    async fn run(&self, attempt: Attempt, channels: Channels) -> Outcome {
        let Some(spec) = spec(&attempt) else {
            return Outcome::failed(FailureClass::Invalid, "the task's runtime is not `command`");
        };
        let Some((program, args)) = program(&spec) else {
            return Outcome::failed(FailureClass::Invalid, "neither `argv` nor `shell` says what to run");
        };
        Box::pin(execute(attempt, channels, spec, program, args)).await
    }
}

fn spec(attempt: &Attempt) -> Option<CommandRuntime> {
    match attempt.assign.spec.as_ref()?.runtime.as_ref()?.kind.as_ref()? {
        runtime::Kind::Command(spec) => Some(spec.clone()),
        _ => None,
    }
}

/// What to run; none when the spec does not say.
fn program(spec: &CommandRuntime) -> Option<(String, Vec<String>)> {
    if !spec.shell.is_empty() {
        return Some(("/bin/sh".to_owned(), vec!["-c".to_owned(), spec.shell.clone()]));
    }
    let (program, args) = spec.argv.split_first()?;
    (!program.is_empty()).then(|| (program.clone(), args.to_vec()))
}

async fn execute(
    attempt: Attempt,
    channels: Channels,
    spec: CommandRuntime,
    program: String,
    args: Vec<String>,
) -> Outcome {
    let Attempt { assign, workspace, scratch, mut environment, redactor } = attempt;
    let Channels { events, inputs, mut stop } = channels;
    let prepared = async {
        let directories = context::write(&scratch, &assign).await?;
        io_result(side::Side::open(&scratch).map(|side| (directories, side)))
    };
    let (directories, side) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => {
            let text = format!("the scratch directory cannot be prepared: {error}");
            return Outcome::failed(FailureClass::Environment, text);
        }
    };
    for (name, path) in [
        (EVENTS, side.path()),
        (context::CONTEXT, &directories.context),
        (context::OUTPUT, &directories.output),
    ] {
        environment.0.insert(name.to_owned(), path.to_string_lossy().into_owned());
    }
    let prompt = assign.spec.map(|spec| spec.prompt).unwrap_or_default();
    let stdin = spec.stdin.clone().unwrap_or(prompt);

    let started = Program { program, args, environment, directory: workspace };
    let mut running = match supervise::start(started).await {
        Ok(running) => running,
        Err(error) => return verdict::not_started(&error),
    };
    let (budget, over) = (Budget::default(), CancellationToken::new());
    let (stdout, stderr, input) = (running.stdout.take(), running.stderr.take(), running.stdin.take());
    let ending = async {
        let _over = over.clone().drop_guard();
        tokio::select! {
            exit = running.wait() => exit.map(|exit| (exit, None)),
            stop = stopped(&mut stop) => running.end(stop.grace).await.map(|(exit, by)| (exit, Some(by))),
        }
    };
    let (ended, stdout, stderr, said, (), ()) = tokio::join!(
        ending,
        pump(stdout, OutputStream::Stdout, &events, &budget, &redactor),
        pump(stderr, OutputStream::Stderr, &events, &budget, &redactor),
        side.listen(&events, &over),
        feed(input, stdin.as_bytes()),
        refuse(inputs, &events, &over),
    );
    let (exit, by) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            return Outcome { usage: said.usage, ..Outcome::failed(FailureClass::Crash, error.to_string()) };
        }
    };
    if exit.strays > 0 {
        let text = format!("processes that outlived the program were ended: {}", exit.strays);
        let _ = events.send(notice(Severity::Low, "strays", text)).await;
    }
    let written = match context::read(&directories).await {
        Ok(written) => written,
        Err(error) => {
            let text = format!("result.json cannot be used: {error}");
            let _ = events.send(notice(Severity::Low, "result_unreadable", text)).await;
            None
        }
    };
    let ending = match by {
        Some(by) => Ending::Stopped { by: by.as_str() },
        None => verdict::ending(&spec, exit, said.result, written, &stdout, &stderr),
    };
    Outcome { ending, usage: said.usage, runtime_session: String::new() }
}

/// Names the error's type, which an async block cannot.
fn io_result<T>(result: std::io::Result<T>) -> std::io::Result<T> {
    result
}

/// Gives the program its input. One that does not read it to the end is within its rights.
async fn feed(stdin: Option<ChildStdin>, bytes: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(bytes).await;
    }
}

/// A program's standard input is given at its start; later input has nowhere to go.
async fn refuse(
    mut inputs: mpsc::Receiver<rota_proto::v1::TaskInput>,
    events: &mpsc::Sender<event::Kind>,
    over: &CancellationToken,
) {
    while let Some(Some(_)) = over.run_until_cancelled(inputs.recv()).await {
        let text = "a `command` takes no input while it runs";
        let _ = events.send(notice(Severity::Low, "input_ignored", text)).await;
    }
}
