//! Dispatches the parsed command line to its command, after logs and telemetry are set up.

use clap::CommandFactory as _;
use rota_telemetry::{env, export, log, otlp};

use crate::args::{Cli, Command};
use crate::commands::admin::{Admin, What};
use crate::context::Context;
use crate::exit::Exit;
use crate::globals::LogFormat;

/// OTLP settings of a command; `None` for commands that export nothing.
fn telemetry(command: &Command) -> Result<Option<otlp::Settings>, otlp::Error> {
    let of = |service| otlp::Settings::from_env(service).map(Some);
    match command {
        Command::Dev(_) => of("rota-dev"),
        Command::Server(_) => of("rota-server"),
        Command::Worker(_) => of("rota-worker"),
        Command::Operator(_) => of("rota-operator"),
        Command::Apply(_) | Command::Run(_) | Command::Retry(_) | Command::Continue(_) | Command::Fork(_) => {
            Ok(of("rota")?.map(otlp::Settings::traces_only))
        }
        _ => Ok(None),
    }
}

pub async fn run(cli: Cli) -> anyhow::Result<Exit> {
    log::init(&log_options(&cli))?;
    let settings = telemetry(&cli.command);
    if let Err(error) = settings.and_then(|settings| settings.as_ref().map_or(Ok(()), export::init)) {
        match cli.command {
            // A task matters more than its trace.
            Command::Apply(_)
            | Command::Run(_)
            | Command::Retry(_)
            | Command::Continue(_)
            | Command::Fork(_) => {
                tracing::warn!(%error, "trace export disabled");
            }
            _ => return Err(error.into()),
        }
    }
    // Commands that need no server.
    let command = match cli.command {
        Command::Bench(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Clean(command) => return command.run(&cli.globals).await,
        Command::Restore(command) => return command.run(&cli.globals).await,
        Command::Inject(command) => return command.run().await,
        Command::Completion(command) => return command.run(Cli::command()),
        Command::Version(command) => return command.run(&cli.globals),
        Command::Ui(command) => return command.run(&cli.globals).await,
        Command::Context(command) => return command.run(&cli.globals),
        Command::Login(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Logout(command) => return command.run(&cli.globals),
        // Reports problems of the connection itself.
        Command::Doctor(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Dev(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Server(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Worker(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Operator(command) => return Box::pin(command.run(&cli.globals)).await,
        Command::Admin(Admin { what: What::Export(command) }) => return command.run(&cli.globals).await,
        Command::Admin(Admin { what: What::Import(command) }) => return command.run(&cli.globals).await,
        command => command,
    };
    let context = &Context::new(&cli.globals).await?;
    match command {
        Command::Apply(command) => command.run(context).await,
        Command::Run(command) => Box::pin(command.run(context)).await,
        Command::Get(command) => Box::pin(command.run(context)).await,
        Command::Describe(command) => command.run(context).await,
        Command::Logs(command) => command.run(context).await,
        Command::Watch(command) => command.run(context).await,
        Command::Wait(command) => command.run(context).await,
        Command::Result(command) => command.run(context).await,
        Command::Attach(command) => command.run(context).await,
        Command::Answer(command) => command.run(context).await,
        Command::Acknowledge(command) => command.run(context).await,
        Command::Cancel(command) => command.run(context).await,
        Command::Bulk(command) => command.run(context).await,
        Command::Retry(command) => command.run(context).await,
        Command::DeadLetters(command) => Box::pin(command.run(context)).await,
        Command::Continue(command) => command.run(context).await,
        Command::Fork(command) => Box::pin(command.run(context)).await,
        Command::Search(command) => command.run(context).await,
        Command::Export(command) => Box::pin(command.run(context)).await,
        Command::Threads(command) => command.run(context).await,
        Command::Workflow(command) => Box::pin(command.run(context)).await,
        Command::Plan(command) => Box::pin(command.run(context)).await,
        Command::Template(command) => Box::pin(command.run(context)).await,
        Command::Kind(command) => Box::pin(command.run(context)).await,
        Command::Schedule(command) => Box::pin(command.run(context)).await,
        Command::Update(command) => Box::pin(command.run(context)).await,
        Command::Artifacts(command) => command.run(context).await,
        Command::Transcript(command) => Box::pin(command.run(context)).await,
        Command::Download(command) => Box::pin(command.run(context)).await,
        Command::Diff(command) => command.run(context).await,
        Command::ApplyDiff(command) => Box::pin(command.run(context)).await,
        Command::Explain(command) => command.run(context).await,
        Command::Events(command) => command.run(context).await,
        Command::Top(command) => command.run(context).await,
        Command::Report(command) => command.run(context).await,
        Command::Metrics(command) => command.run(context).await,
        Command::Costs(command) => command.run(context).await,
        Command::Agents(command) => command.run(context).await,
        Command::Permissions(command) => command.run(context).await,
        Command::Workers(command) => command.run(context).await,
        Command::Capabilities(command) => command.run(context).await,
        Command::Drain(command) => command.run(context).await,
        Command::Delete(command) => command.run(context).await,
        Command::Admin(command) => command.run(context).await,
        // Handled above.
        Command::Bench(_)
        | Command::Clean(_)
        | Command::Restore(_)
        | Command::Inject(_)
        | Command::Completion(_)
        | Command::Version(_)
        | Command::Ui(_)
        | Command::Context(_)
        | Command::Login(_)
        | Command::Logout(_)
        | Command::Doctor(_)
        | Command::Dev(_)
        | Command::Server(_)
        | Command::Worker(_)
        | Command::Operator(_) => Ok(Exit::Ok),
    }
}

/// Log options. By default, components log at info level and interactive commands only warnings.
fn log_options(cli: &Cli) -> log::Options {
    let default = match &cli.command {
        Command::Server(_) | Command::Worker(_) | Command::Operator(_) => "info",
        Command::Dev(_) => "warn,rota_local=info",
        // Logs would be written over its screen, which shows problems itself.
        Command::Top(command) if !command.once => "off",
        _ => "warn",
    };
    let format = match cli.globals.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let filter =
        cli.globals.log.clone().or_else(|| env::var("ROTA_LOG")).unwrap_or_else(|| default.to_owned());
    log::Options { filter, format }
}
