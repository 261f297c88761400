//! `rota admin`: administers the control plane.

use clap::{Args, Subcommand};
use rota_proto::names;
use rota_proto::v1::{
    BackgroundTaskState, BreakerState, GetDatabaseStatusRequest, GetLogFilterRequest, GetSystemStatusRequest,
    ListBackgroundTasksRequest, ResetBreakerRequest, SetLogFilterRequest, SystemState,
};

use super::alerts::Alerts;
use super::browser_sessions::{RevokeSession, sessions};
use super::budgets::{Budgets, CorrectSpending, SetBudget};
use super::configuration::{ExportConfiguration, ImportConfiguration};
use super::doctor::database::describe;
use super::storage::{Backup, Prune, reindex, rotate_key};
use super::transfer::{Export, Import};
use super::worker_tokens::{CreateWorkerToken, RevokeWorkerToken, WorkerTokens};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, age, clean, elapsed, time};

const EXAMPLES: &str = "\
Examples:
  rota admin status
  rota admin replicas
  rota admin background-tasks
  rota admin log-filter
  rota admin log-filter info,rota_server=debug
  rota admin alerts -A
  rota admin breakers
  rota admin reset-breaker coder
  rota admin budgets
  rota -n team-a admin set-budget --daily-usd 50 --monthly-usd 900
  rota -n team-a admin correct-spending --agent coder --today-usd 3.20
  rota admin create-worker-token coder --worker coder-gpu --max-slots 2 >token
  rota admin worker-tokens
  rota admin revoke-worker-token 0198b2c4-51f0-7c3a-8f52-9d3a4b1c7e60
  rota admin sessions
  rota admin revoke-session 0198b2c4-51f0-7c3a-8f52-9d3a4b1c7e60
  rota admin prune --older-than 7d
  rota admin rotate-key
  rota admin reindex
  rota admin prune --task 01981f6e-6e2c-7c3e-9d5c-2b7a1c9e4f10
  rota admin backup rota.sqlite
  rota admin backup --directory /var/backups/rota --keep 7
  rota admin export rota.jsonl --data-dir /var/lib/rota/server
  rota admin import rota.jsonl --store postgres://rota@db.example/rota
  rota admin export-configuration configuration.json
  rota admin import-configuration configuration.json --secret-env DEPLOY_TOKEN";

/// Administer the control plane: status, log filter, circuit breakers, backups
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Admin {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Show the health of the control plane; exits with 1 if it is in the error state
    Status,
    /// List the replicas that share the database, the owner first, and describe the database
    ///
    /// The load of the owner is in `rota admin status`, and that of each replica in its metrics.
    Replicas,
    /// List background tasks with their state and last success
    BackgroundTasks,
    /// Print the log filter, or change it until the process restarts
    LogFilter {
        /// New filter, such as `info` or `rota_server=debug,info`
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
    },
    /// List everything that is wrong now, and since when
    Alerts(Alerts),
    /// List circuit breakers of agents, and of back ends of models, with recent infrastructure failures
    Breakers,
    /// Close an agent's circuit breaker and that of its back end immediately, and end the cool-downs of its credentials
    ResetBreaker {
        /// Name of the agent
        #[arg(value_name = "AGENT", required_unless_present = "credential")]
        agent: Option<String>,
        /// End the cool-down of one credential instead, by the id that `rota explain` prints
        #[arg(long, value_name = "ID", conflicts_with = "agent")]
        credential: Option<String>,
    },
    /// List what agents and namespaces have spent today and this month, with their budgets
    Budgets(Budgets),
    /// Set the budget of the namespace, which all its agents share
    SetBudget(SetBudget),
    /// Correct what the namespace or one of its agents has spent, where a wrong report has spoiled the books
    CorrectSpending(CorrectSpending),
    /// Print a new token with which workers of an agent open sessions; only a record of it is stored
    CreateWorkerToken(CreateWorkerToken),
    /// List the worker tokens that are valid, with their use
    WorkerTokens(WorkerTokens),
    /// Revoke worker tokens for good; workers that use them end, with their attempts
    RevokeWorkerToken(RevokeWorkerToken),
    /// List the sessions of browsers that have signed in to the control centre
    Sessions,
    /// End sessions of browsers for good; their open pages ask to sign in
    RevokeSession(RevokeSession),
    /// Remove the records of tasks that ended some time ago; those that other tasks need stay
    Prune(Prune),
    /// Seal all secrets under the key of --next-key-file, while the control plane is in use
    RotateKey,
    /// Build the index of `rota search` again, in the background
    Reindex,
    /// Copy the store of the control plane to a file while it is in use
    Backup(Backup),
    /// Write all records of a control plane that is stopped to a file, as lines of JSON
    Export(Export),
    /// Read all records of a control plane from such a file into a store that is empty
    Import(Import),
    /// Write budgets, agents, kinds, templates and schedules of all namespaces to a file, without values of secrets
    ExportConfiguration(ExportConfiguration),
    /// Create or replace what is in such a file; everything else stays
    ImportConfiguration(ImportConfiguration),
}

impl Admin {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.what {
            What::Status => status(context).await,
            What::Replicas => replicas(context).await,
            What::BackgroundTasks => background_tasks(context).await,
            What::LogFilter { filter } => log_filter(context, filter).await,
            What::Alerts(alerts) => alerts.run(context).await,
            What::Breakers => breakers(context).await,
            What::ResetBreaker { agent, credential } => match (agent, credential) {
                (_, Some(credential)) => end_cool_down(context, credential).await,
                (agent, None) => reset_breaker(context, &agent.unwrap_or_default()).await,
            },
            What::Budgets(budgets) => budgets.run(context).await,
            What::SetBudget(budget) => budget.run(context).await,
            What::CorrectSpending(correction) => correction.run(context).await,
            What::CreateWorkerToken(wanted) => wanted.run(context).await,
            What::WorkerTokens(tokens) => tokens.run(context).await,
            What::RevokeWorkerToken(revoked) => revoked.run(context).await,
            What::Sessions => sessions(context).await,
            What::RevokeSession(revoked) => revoked.run(context).await,
            What::Prune(prune) => prune.run(context).await,
            What::RotateKey => rotate_key(context).await,
            What::Reindex => reindex(context).await,
            What::Backup(backup) => backup.run(context).await,
            What::ExportConfiguration(export) => Box::pin(export.run(context)).await,
            What::ImportConfiguration(import) => Box::pin(import.run(context)).await,
            // Handled without a connection.
            What::Export(_) | What::Import(_) => Ok(Exit::Ok),
        }
    }
}

async fn status(context: &Context) -> anyhow::Result<Exit> {
    let status = context.client.get_system_status(GetSystemStatusRequest {}).await?;
    let exit = if status.state() == SystemState::Error { Exit::Failed } else { Exit::Ok };
    if !context.out.is_human() {
        context.out.value(&status)?;
        return Ok(exit);
    }
    let (store, counts) = (status.store.clone().unwrap_or_default(), status.counts.unwrap_or_default());
    let (state, paint) = match status.state() {
        SystemState::Healthy => ("healthy", Paint::Good),
        SystemState::Degraded => ("degraded", Paint::Waiting),
        SystemState::Error | SystemState::Unspecified => ("error", Paint::Bad),
    };
    let mut table = Table::new(&["PROPERTY", "VALUE"]);
    table.row([("state".to_owned(), Paint::Plain), (state.to_owned(), paint)]);
    let mut row = |property: &str, value: String| table.row([property.to_owned(), value]);
    row("version", status.version);
    row("replica", status.replica);
    let standbys: Vec<_> =
        status.replicas.iter().filter(|one| !one.owner).map(|one| clean(&one.name)).collect();
    if !standbys.is_empty() {
        row("standing by", standbys.join(", "));
    }
    row("uptime", elapsed(status.start_time.as_ref(), status.server_time.as_ref()));
    row("server time", time(status.server_time.as_ref()));
    row("store", if store.available { "reachable" } else { "unreachable" }.to_owned());
    if let Some(space) = &store.space {
        let mib = |bytes: i64| format!("{} MiB", bytes / (1 << 20));
        let (used, free) =
            (mib(space.size_bytes - space.reusable_bytes), mib(space.free_bytes + space.reusable_bytes));
        row("store space", format!("{used} used, {free} free"));
    }
    row("last commit", store.last_commit_time.map_or("none".to_owned(), |at| age(Some(&at)) + " ago"));
    row("workers", format!("{} ({} connected)", counts.workers, counts.sessions));
    let on_workers = counts.assigned_tasks + counts.running_tasks;
    let (waiting, asking) = (counts.pending_tasks + counts.queued_tasks, counts.input_required_tasks);
    row("tasks", format!("{on_workers} on workers, {asking} require input, {waiting} pending or queued"));
    context.out.table(&table)?;
    for cause in &status.causes {
        context.out.line(&format!("\n{}: {}", clean(&cause.code), clean(&cause.message)))?;
        if !cause.hint.is_empty() {
            context.out.line(&format!("  {}", clean(&cause.hint)))?;
        }
    }
    Ok(exit)
}

async fn replicas(context: &Context) -> anyhow::Result<Exit> {
    let replicas = context.client.get_system_status(GetSystemStatusRequest {}).await?.replicas;
    if !context.out.is_human() {
        context.out.list("replicas", &replicas)?;
        return Ok(Exit::Ok);
    }
    if replicas.is_empty() {
        context.out.line("the store is a file, which one control plane uses")?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["REPLICA", "STATE", "LEASE", "VERSION", "ADDRESS"]);
    for one in &replicas {
        let (state, paint) = if one.owner { ("owner", Paint::Good) } else { ("standing by", Paint::Plain) };
        let lease = one.lease.as_ref().map_or(0, |lease| lease.seconds);
        let plain = |text: String| (text, Paint::Plain);
        table.row([
            plain(one.name.clone()),
            (state.to_owned(), paint),
            plain(format!("{lease}s")),
            plain(one.version.clone()),
            plain(one.address.clone()),
        ]);
    }
    context.out.table(&table)?;
    let database = context.client.get_database_status(GetDatabaseStatusRequest {}).await?;
    if !database.version.is_empty() {
        let (revision, epoch) = (database.revision, database.epoch);
        context.out.line(&format!("\n{}\nrevision {revision}, epoch {epoch}", describe(&database)))?;
    }
    Ok(Exit::Ok)
}

async fn background_tasks(context: &Context) -> anyhow::Result<Exit> {
    let tasks = context.client.list_background_tasks(ListBackgroundTasksRequest {}).await?.background_tasks;
    if !context.out.is_human() {
        context.out.list("backgroundTasks", &tasks)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["TASK", "STATE", "LAST SUCCESS", "SUCCEEDED", "FAILED", "DETAILS"]);
    for one in &tasks {
        let (state, paint) = match one.state() {
            BackgroundTaskState::Idle => ("idle", Paint::Plain),
            BackgroundTaskState::Running => ("running", Paint::Busy),
            BackgroundTaskState::Failing => ("failing", Paint::Bad),
            BackgroundTaskState::Stuck => ("stuck", Paint::Bad),
            BackgroundTaskState::Stopped | BackgroundTaskState::Unspecified => ("stopped", Paint::Bad),
        };
        let details = if one.error.is_empty() { &one.description } else { &one.error };
        let last = one.last_success_time.as_ref();
        let plain = |text: String| (text, Paint::Plain);
        table.row([
            plain(one.name.clone()),
            (state.to_owned(), paint),
            plain(last.map_or("never".to_owned(), |at| age(Some(at)) + " ago")),
            plain(one.succeeded.to_string()),
            plain(one.failed.to_string()),
            plain(details.clone()),
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

async fn log_filter(context: &Context, filter: Option<String>) -> anyhow::Result<Exit> {
    let now = match filter {
        None => context.client.get_log_filter(GetLogFilterRequest {}).await?,
        Some(filter) => context.client.set_log_filter(SetLogFilterRequest { filter }).await?,
    };
    if context.out.is_human() {
        context.out.line(&clean(&now.filter))?;
    } else {
        context.out.value(&now)?;
    }
    Ok(Exit::Ok)
}

async fn breakers(context: &Context) -> anyhow::Result<Exit> {
    let breakers = context.client.get_system_status(GetSystemStatusRequest {}).await?.breakers;
    if !context.out.is_human() {
        context.out.list("breakers", &breakers)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAMESPACE", "OF", "STATE", "OPEN UNTIL", "FAILURES", "LAST FAILURE"]);
    for one in &breakers {
        let (namespace, of) = match names::parse(&one.agent, "agents") {
            Some((namespace, agent)) => (namespace, format!("agent {agent}")),
            None => backend(&one.backend),
        };
        let (state, paint) = match one.state() {
            BreakerState::Closed | BreakerState::Unspecified => ("closed", Paint::Good),
            BreakerState::Open => ("open", Paint::Bad),
            BreakerState::HalfOpen => ("half-open", Paint::Waiting),
        };
        let plain = |text: String| (text, Paint::Plain);
        table.row([
            plain(namespace.to_owned()),
            plain(of),
            (state.to_owned(), paint),
            plain(time(one.open_until_time.as_ref())),
            plain(one.failures.to_string()),
            plain(one.message.clone()),
        ]);
    }
    if table.is_empty() {
        context.reporter.line("all circuit breakers are closed, without recent failures");
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

/// Returns the namespace of a back end, and what it is called in a table.
fn backend(name: &str) -> (&str, String) {
    let rest = name.strip_prefix("namespaces/").unwrap_or_default();
    let (namespace, host) = rest.split_once("/backends/").unwrap_or_default();
    (namespace, format!("back end {host}"))
}

async fn end_cool_down(context: &Context, credential: String) -> anyhow::Result<Exit> {
    let name = format!("namespaces/{}", context.namespace);
    let request = ResetBreakerRequest { name, credential: credential.clone() };
    let response = context.client.reset_breaker(request).await?;
    if context.out.is_human() {
        context.reporter.line(&format!("cool-down of the credential {credential} ended"));
    } else {
        context.out.value(&response)?;
    }
    Ok(Exit::Ok)
}

async fn reset_breaker(context: &Context, agent: &str) -> anyhow::Result<Exit> {
    let name = context.agent(agent)?;
    let before = context.client.reset_breaker(ResetBreakerRequest { name, ..Default::default() }).await?;
    if !context.out.is_human() {
        context.out.value(&before)?;
    } else {
        let was = if before.breaker.is_some() { "" } else { "was already " };
        let ended = "cool-downs of its credentials have ended";
        context.reporter.line(&format!("circuit breaker of {agent} {was}closed; {ended}"));
    }
    Ok(Exit::Ok)
}
