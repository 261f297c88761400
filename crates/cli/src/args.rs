//! The command line: what is true for every command, and the list of them. Each command's own
//! arguments are in its file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use rota_client::discover::Flags;

use crate::commands::*;
use crate::output::{Color, Format};

const AFTER: &str = "\
Exit codes:
  0    done; every task concerned succeeded
  1    a task failed, or something else went wrong
  2    the command line cannot be understood
  3    a task was cancelled
  4    there is no such thing
  5    no server, or it does not let us in
  6    what was waited for did not come in time
  130  interrupted; tasks go on

Where the server is: --endpoint, ROTA_ENDPOINT, the config file, a `rota dev` on this machine,
or http://127.0.0.1:7420, in this order.";

/// A duty roster for AI agents: hand it tasks, and it runs, follows and never loses them.
#[derive(Debug, Parser)]
#[command(name = "rota", version, after_long_help = AFTER, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// For every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The server, for example http://127.0.0.1:7420 or https://rota.example [env: ROTA_ENDPOINT]
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// A file with the token [env: ROTA_TOKEN_FILE, or the token itself in ROTA_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates to trust, in PEM [env: ROTA_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The namespace to work in [env: ROTA_NAMESPACE] [default: default]
    #[arg(long, short, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How data is printed
    #[arg(long, short, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Format,
    /// When to use colours; NO_COLOR is kept too
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: Color,
    /// How logs look
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What to log, for example `info` or `rota_client=debug` [env: ROTA_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

impl Globals {
    /// Those that say which server to talk to.
    pub fn flags(&self) -> Flags {
        Flags {
            endpoint: self.endpoint.clone(),
            token_file: self.token_file.clone(),
            ca: self.ca.clone(),
            namespace: self.namespace.clone(),
            config: None,
        }
    }
}

/// How logs look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make or change what manifests say
    Apply(apply::Apply),
    /// Run one task and print its result
    Run(run::Run),
    /// List tasks, agents or workers, or show one
    Get(get::Get),
    /// Tell everything about one task, agent or worker
    Describe(describe::Describe),
    /// Print what a task's agent said and did
    Logs(logs::Logs),
    /// Follow a task, or all tasks of a namespace, live
    Watch(watch::Watch),
    /// Wait until tasks have ended
    Wait(wait::Wait),
    /// Print what a task brought
    Result(result::Result),
    /// Give a running task input, and answer its questions
    Attach(attach::Attach),
    /// End tasks
    Cancel(cancel::Cancel),
    /// Run a task that has ended once more
    Retry(retry::Retry),
    /// Change a task's priority, labels or whether it may start
    Update(update::Update),
    /// Say why a task is not running now
    Explain(explain::Explain),
    /// Follow the fleet live: pools, queue, running tasks, cost
    Top(top::Top),
    /// Tell how one task went, or how all did lately: outcomes, times, retries, tokens and cost
    Report(report::Report),
    /// Check configuration, connection, control plane and agents, and say what to do
    Doctor(doctor::Doctor),
    /// Print the raw event log of a task or a namespace
    Events(events::Events),
    /// List agents
    Agents(agents::Agents),
    /// List workers, or tell everything about one
    Workers(workers::Workers),
    /// List what can be done now
    Capabilities(capabilities::Capabilities),
    /// Let an agent's workers finish and take nothing new
    Drain(drain::Drain),
    /// Remove an agent
    Delete(delete::Delete),
    /// Look after the control plane itself: its state, its loops, its log
    Admin(admin::Admin),
    /// Run everything on this machine: store, control plane and workers
    Dev(dev::Dev),
    /// Run a control plane
    Server(server::Server),
    /// Run a worker of an agent
    Worker(worker::Worker),
    /// Run the operator of a Kubernetes cluster
    Operator(operator::Operator),
    /// Measure this machine
    Bench(bench::Bench),
    /// Print a completion script for a shell
    Completion(completion::Completion),
    /// Print this program's version
    Version(version::Version),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_negative_amount_is_no_flag() {
        fn all(command: &clap::Command) -> Vec<clap::Arg> {
            let own = command.get_arguments().cloned();
            own.chain(command.get_subcommands().flat_map(all)).collect()
        }
        let named = |arg: &clap::Arg, names: &[&str]| {
            arg.get_value_names().is_some_and(|given| names.contains(&given[0].as_str()))
        };
        let amounts = all(&Cli::command()).into_iter().filter(|arg| named(arg, &["TIME", "DOLLARS"]));
        let spans: Vec<_> =
            amounts.map(|arg| (arg.get_id().clone(), arg.is_allow_hyphen_values_set())).collect();
        assert!(spans.len() > 5 && spans.iter().all(|(_, allowed)| *allowed), "{spans:?}");
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
            // What an example says can be said: its flags exist.
            let known: Vec<_> = command
                .get_arguments()
                .chain(command.get_subcommands().flat_map(clap::Command::get_arguments))
                .filter_map(clap::Arg::get_long)
                .collect();
            let global = ["endpoint", "token-file", "output", "namespace"];
            for line in help.lines().filter(|line| line.trim_start().starts_with("rota ")) {
                let own = line.split(" -- ").next().unwrap_or(line);
                // A line may go on with another command.
                let own = own.split(" && ").next().unwrap_or(own);
                for flag in own.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                    assert!(known.contains(&flag) || global.contains(&flag), "{line}: --{flag}");
                }
            }
        }
    }
}
