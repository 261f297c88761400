//! The commands, a file each, and what several of them need.

pub mod admin;
pub mod agents;
pub mod apply;
pub mod attach;
pub mod bench;
pub mod cancel;
pub mod capabilities;
pub mod completion;
pub mod delete;
pub mod describe;
pub mod dev;
pub mod doctor;
pub mod drain;
pub mod events;
pub mod explain;
mod follow;
pub mod get;
pub mod logs;
pub mod operator;
mod pairs;
pub mod report;
pub mod result;
pub mod retry;
pub mod run;
mod serve;
pub mod server;
mod signals;
pub mod top;
mod track;
pub mod update;
pub mod version;
pub mod wait;
mod waiting;
pub mod watch;
pub mod worker;
pub mod workers;

use rota_client::Code;
use rota_proto::v1::{Task, TaskState};
use rota_telemetry::{env, log, otlp};

use crate::args::{Cli, Command, LogFormat};
use crate::context::Context;
use crate::exit::Exit;

/// What a command tells a collector of itself, if somebody names one.
fn telemetry(command: &Command) -> Result<Option<otlp::Settings>, otlp::Error> {
    let of = |service| otlp::Settings::from_env(service).map(Some);
    match command {
        Command::Dev(_) => of("rota-dev"),
        Command::Server(_) => of("rota-server"),
        Command::Worker(_) => of("rota-worker"),
        Command::Operator(_) => of("rota-operator"),
        Command::Apply(_) | Command::Run(_) | Command::Retry(_) => {
            Ok(of("rota")?.map(otlp::Settings::only_traces))
        }
        _ => Ok(None),
    }
}

/// Carries a command out.
pub async fn run(cli: Cli) -> anyhow::Result<Exit> {
    log::init(&log_options(&cli))?;
    if let Err(error) = telemetry(&cli.command).and_then(|asked| asked.as_ref().map_or(Ok(()), otlp::init)) {
        match cli.command {
            // A task matters more than its trace.
            Command::Apply(_) | Command::Run(_) | Command::Retry(_) => {
                tracing::warn!(%error, "no span is sent");
            }
            _ => return Err(error.into()),
        }
    }
    // These need no server.
    let command = match cli.command {
        Command::Bench(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Completion(command) => return command.run(),
        Command::Version(command) => return command.run(&cli.globals),
        // What is wrong with the way to a server is for it to tell.
        Command::Doctor(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Dev(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Server(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Worker(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Operator(command) => return Box::pin(command.run(&cli.globals)).await,
        command => command,
    };
    let context = &Context::new(&cli.globals)?;
    match command {
        Command::Apply(command) => command.run(context).await,
        Command::Run(command) => Box::pin(command.run(context)).await,
        Command::Get(command) => command.run(context).await,
        Command::Describe(command) => command.run(context).await,
        Command::Logs(command) => command.run(context).await,
        Command::Watch(command) => command.run(context).await,
        Command::Wait(command) => command.run(context).await,
        Command::Result(command) => command.run(context).await,
        Command::Attach(command) => command.run(context).await,
        Command::Cancel(command) => command.run(context).await,
        Command::Retry(command) => command.run(context).await,
        Command::Update(command) => Box::pin(command.run(context)).await,
        Command::Explain(command) => command.run(context).await,
        Command::Events(command) => command.run(context).await,
        Command::Top(command) => command.run(context).await,
        Command::Report(command) => command.run(context).await,
        Command::Agents(command) => command.run(context).await,
        Command::Workers(command) => command.run(context).await,
        Command::Capabilities(command) => command.run(context).await,
        Command::Drain(command) => command.run(context).await,
        Command::Delete(command) => command.run(context).await,
        Command::Admin(command) => command.run(context).await,
        // Done above.
        Command::Bench(_)
        | Command::Completion(_)
        | Command::Version(_)
        | Command::Doctor(_)
        | Command::Dev(_)
        | Command::Server(_)
        | Command::Worker(_)
        | Command::Operator(_) => Ok(Exit::Ok),
    }
}

/// What is logged when nobody says: a command of a person's only what is wrong.
fn log_options(cli: &Cli) -> log::Options {
    let usual = match &cli.command {
        Command::Server(_) | Command::Worker(_) | Command::Operator(_) => "info",
        Command::Dev(_) => "warn,rota_local=info",
        // It draws in the terminal that a log would be written into, and says itself what is wrong.
        Command::Top(command) if !command.once => "off",
        _ => "warn",
    };
    let format = match cli.globals.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let filter = cli.globals.log.clone().or_else(|| env::var("ROTA_LOG")).unwrap_or_else(|| usual.to_owned());
    log::Options { filter, format }
}

/// A task's state.
fn state_of(task: &Task) -> TaskState {
    task.status.as_ref().map_or(TaskState::Unspecified, |status| status.state())
}

/// How a task that has ended ends the program.
fn outcome(task: &Task) -> Exit {
    match state_of(task) {
        TaskState::Failed => Exit::Failed,
        TaskState::Cancelled => Exit::Cancelled,
        _ => Exit::Ok,
    }
}

/// How several tasks together do: a failure weighs most.
fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
    let weight = |exit: &Exit| match exit {
        Exit::Ok => 0,
        Exit::Cancelled => 1,
        Exit::NotFound => 2,
        _ => 3,
    };
    exits.into_iter().max_by_key(weight).unwrap_or(Exit::Ok)
}

/// An answer, or nothing where there is no such thing.
fn found<T>(answer: Result<T, rota_client::Error>) -> Result<Option<T>, rota_client::Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What one says to somebody who leaves a task alone.
fn say_goes_on(context: &Context, task: &str) {
    let task = rota_proto::names::last(task);
    context.talk.say(&format!("\nThe task goes on. Follow it again: rota watch {task}"));
    context.talk.say(&format!("End it:                          rota cancel {task}"));
}
