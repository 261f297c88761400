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

The server is, in this order: --endpoint or --context, ROTA_ENDPOINT, ROTA_CONTEXT, the current \
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

/// Command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or update agents, schedules and tasks from manifests
    Apply(apply::Apply),
    /// Run one task and print its result
    Run(Box<run::Run>),
    /// List tasks, agents or workers, or show one
    Get(get::Get),
    /// Show one task, agent or worker in detail
    Describe(describe::Describe),
    /// Print the output of a task's agent
    Logs(logs::Logs),
    /// Follow a task, or all tasks of a namespace, live
    Watch(watch::Watch),
    /// Wait until tasks have finished
    Wait(wait::Wait),
    /// Print a task's result
    Result(result::Result),
    /// Send input to a running task and answer its questions
    Attach(attach::Attach),
    /// Answer a question of a task, or show what it asks
    Answer(answer::Answer),
    /// Acknowledge that tasks which continue keep failing
    Acknowledge(acknowledge::Acknowledge),
    /// Cancel tasks
    Cancel(cancel::Cancel),
    /// Cancel, suspend, resume or retry all tasks that match a filter, or set their priority
    Bulk(bulk::Bulk),
    /// Run a finished task again
    Retry(retry::Retry),
    /// List tasks that have failed for good, and run them again
    DeadLetters(dead_letters::DeadLetters),
    /// Continue the conversation of a finished task, with its files, in a new task
    Continue(Box<continuing::Continue>),
    /// Continue from the newest checkpoint of a task that may still run, in a new task
    Fork(Box<continuing::Fork>),
    /// List threads: tasks that run one after the other and continue one conversation
    Threads(threads::Threads),
    /// Run tasks at recurring times: create, list, pause and run schedules
    Schedule(Box<schedule::Schedule>),
    /// Run workflows: graphs of tasks, approvals and waits
    Workflow(Box<workflow::Workflow>),
    /// Plan work as subtasks of several agents, and run the plan as a workflow
    Plan(Box<plan::Plan>),
    /// Manage templates of workflows, in versions
    Template(template::Template),
    /// Manage kinds of tasks: presets of agent, prompt, limits and result
    Kind(kind::Kind),
    /// Change a task's priority, labels or hold
    Update(update::Update),
    /// List the files that the attempts of a task have left, and those that it was given
    Artifacts(artifacts::Artifacts),
    /// Download the files that an attempt of a task has left
    Download(artifacts::Download),
    /// Print the transcript of a task: messages, tool calls with their results, subagents, cost
    Transcript(transcript::Transcript),
    /// Show what an attempt of a task has changed in its repository
    Diff(changes::Diff),
    /// Apply what an attempt of a task has changed to a git repository of this machine
    ApplyDiff(changes::ApplyDiff),
    /// Explain why a task is not running
    Explain(explain::Explain),
    /// Follow pools, queue, running tasks and cost live
    Top(top::Top),
    /// Show statistics for one task or for recent tasks: outcomes, times, retries, tokens and cost
    Report(report::Report),
    /// Show what was done and what waited in the past, up to 30 days, by the minute or the hour
    Metrics(metrics::Metrics),
    /// Check configuration, connection, control plane and agents, and suggest fixes
    Doctor(doctor::Doctor),
    /// Print the raw event log of a task or a namespace
    Events(events::Events),
    /// List agents
    Agents(agents::Agents),
    /// List the rules that people have allowed for an agent, or remove some
    Permissions(permissions::Permissions),
    /// List workers, or show one in detail
    Workers(workers::Workers),
    /// List the capabilities available now
    Capabilities(capabilities::Capabilities),
    /// Drain an agent's workers: running tasks finish, no new ones start
    Drain(drain::Drain),
    /// Delete an agent
    Delete(delete::Delete),
    /// Administer the control plane: status, log filter, circuit breakers, backups
    Admin(admin::Admin),
    /// Print a link to the control centre that signs in with the token of the command line
    Ui(ui::Ui),
    /// Name control planes, with address, token and namespace, and choose the one that commands use
    Context(contexts::ContextCommand),
    /// Sign in at the issuer of the control plane, and keep the login in a context
    Login(login::Login),
    /// Remove the login of a context
    Logout(login::Logout),
    /// Run everything on this machine: store, control plane and workers
    Dev(dev::Dev),
    /// Run a control plane
    Server(server::Server),
    /// Put a backup in place of the store of a control plane that is stopped
    Restore(restore::Restore),
    /// Run a worker of an agent
    Worker(worker::Worker),
    /// Remove workspaces that workers of this machine have kept, and that no attempt uses
    Clean(clean::Clean),
    /// Copy this program and its libraries to a directory, for containers whose image lacks it
    Inject(inject::Inject),
    /// Run the Kubernetes operator
    Operator(operator::Operator),
    /// Benchmark a control plane on this machine
    Bench(bench::Bench),
    /// Print a shell completion script
    Completion(completion::Completion),
    /// Print the version of this program
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
            let global = ["endpoint", "context", "token-file", "ca", "output", "namespace"];
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
