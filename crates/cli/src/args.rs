//! The command line: the list of commands. The arguments of each command are in its own file, the global
//! options in `globals`.

use clap::{Parser, Subcommand};

use crate::commands::*;
use crate::globals::Globals;

const AFTER_HELP: &str = "\
Exit codes:
  0    success; every task or workflow concerned succeeded
  1    a task or workflow failed, or another error occurred
  2    invalid command line or configuration
  3    a task or workflow was cancelled
  4    not found
  5    server unreachable or access denied
  6    timeout while waiting
  130  interrupted; tasks and workflows continue

The server is, in this order: --endpoint, --kube or --context, ROTA_ENDPOINT, ROTA_CONTEXT_NAME, the current \
context, the config file, a `rota dev` on this machine, http://127.0.0.1:7420.";

/// Duty roster for AI agents: schedules tasks on pools of agents, streams their progress, and never loses one.
#[derive(Debug, Parser)]
#[command(name = "rota", version, after_long_help = AFTER_HELP, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// Command to run. Its help is that of its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Apply(apply::Apply),
    Run(Box<run::Run>),
    Get(Box<get::Get>),
    Search(Box<search::Search>),
    Export(Box<export::Export>),
    Describe(describe::Describe),
    Logs(logs::Logs),
    Watch(watch::Watch),
    Wait(wait::Wait),
    Result(result::Result),
    Attach(attach::Attach),
    Answer(answer::Answer),
    Acknowledge(acknowledge::Acknowledge),
    Cancel(cancel::Cancel),
    Bulk(bulk::Bulk),
    Retry(retry::Retry),
    DeadLetters(dead_letters::DeadLetters),
    Continue(Box<continuing::Continue>),
    Fork(Box<continuing::Fork>),
    Threads(threads::Threads),
    Schedule(Box<schedule::Schedule>),
    Workflow(Box<workflow::Workflow>),
    Plan(Box<plan::Plan>),
    Template(template::Template),
    Kind(kind::Kind),
    Update(update::Update),
    Artifacts(artifacts::Artifacts),
    Download(artifacts::Download),
    Transcript(transcript::Transcript),
    Diff(changes::Diff),
    ApplyDiff(changes::ApplyDiff),
    Explain(explain::Explain),
    Top(top::Top),
    Report(report::Report),
    Metrics(metrics::Metrics),
    Costs(costs::Costs),
    Doctor(doctor::Doctor),
    Events(events::Events),
    Agents(agents::Agents),
    Permissions(permissions::Permissions),
    Workers(workers::Workers),
    Capabilities(capabilities::Capabilities),
    Drain(drain::Drain),
    Delete(delete::Delete),
    Admin(admin::Admin),
    Ui(ui::Ui),
    Context(contexts::ContextCommand),
    Login(login::Login),
    Logout(login::Logout),
    Dev(dev::Dev),
    Server(server::Server),
    Restore(restore::Restore),
    Worker(worker::Worker),
    Clean(clean::Clean),
    Inject(inject::Inject),
    Operator(operator::Operator),
    Bench(bench::Bench),
    Completion(completion::Completion),
    Version(version::Version),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn negative_amounts_are_values() {
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
            // Flags of examples exist.
            let known: Vec<_> = command
                .get_arguments()
                .chain(command.get_subcommands().flat_map(clap::Command::get_arguments))
                .filter_map(clap::Arg::get_long)
                .collect();
            let global = [
                "endpoint",
                "context",
                "kube",
                "kube-context",
                "kube-namespace",
                "kube-release",
                "token-file",
                "ca",
                "output",
                "namespace",
            ];
            for line in help.lines().filter(|line| line.trim_start().starts_with("rota ")) {
                let own = line.split(" -- ").next().unwrap_or(line);
                // A line may continue with another command.
                let own = own.split(" && ").next().unwrap_or(own);
                for flag in own.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                    assert!(known.contains(&flag) || global.contains(&flag), "{line}: --{flag}");
                }
            }
        }
    }
}
