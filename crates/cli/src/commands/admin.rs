//! `rota admin`: the control plane itself.

use clap::{Args, Subcommand};
use rota_proto::names;
use rota_proto::v1::{
    BreakerState, GetLogFilterRequest, GetSystemStatusRequest, ListLoopsRequest, LoopState,
    ResetBreakerRequest, SetLogFilterRequest, SystemState,
};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, age, clean, elapsed, time};

const EXAMPLES: &str = "\
Examples:
  rota admin status
  rota admin loops
  rota admin log-filter
  rota admin log-filter info,rota_server=debug
  rota admin breakers
  rota admin reset-breaker coder";

/// Look after the control plane itself
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Admin {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Say how the control plane fares, and why not better; ends with 1 when it cannot do its work
    Status,
    /// List what goes on in the background, and when each last did its work
    Loops,
    /// Print what is logged, or change it until the process ends
    LogFilter {
        /// For example `info`, or `rota_server=debug,info`
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
    },
    /// List agents whose last attempts failed through no fault of their tasks, and what they are given
    Breakers,
    /// Give an agent everything again at once
    ResetBreaker {
        /// The agent
        #[arg(value_name = "AGENT")]
        agent: String,
    },
}

impl Admin {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.what {
            What::Status => status(context).await,
            What::Loops => loops(context).await,
            What::LogFilter { filter } => log_filter(context, filter).await,
            What::Breakers => breakers(context).await,
            What::ResetBreaker { agent } => reset_breaker(context, &agent).await,
        }
    }
}

async fn status(context: &Context) -> anyhow::Result<Exit> {
    let status = context.client.get_system_status(GetSystemStatusRequest {}).await?;
    let exit = if status.state() == SystemState::Error { Exit::Failed } else { Exit::Ok };
    if !context.out.for_eyes() {
        context.out.value(&status)?;
        return Ok(exit);
    }
    let (store, counts) = (status.store.clone().unwrap_or_default(), status.counts.unwrap_or_default());
    let (state, paint) = match status.state() {
        SystemState::Healthy => ("healthy", Paint::Good),
        SystemState::Degraded => ("degraded", Paint::Waiting),
        SystemState::Error | SystemState::Unspecified => ("error", Paint::Bad),
    };
    let mut table = Table::new(&["WHAT", "NOW"]);
    table.row([("state".to_owned(), Paint::Plain), (state.to_owned(), paint)]);
    let mut row = |what: &str, now: String| table.row([what.to_owned(), now]);
    row("version", status.version);
    row("replica", status.replica);
    row("up for", elapsed(status.start_time.as_ref(), status.server_time.as_ref()));
    row("time there", time(status.server_time.as_ref()));
    row("store", if store.answers { "answers" } else { "does not answer" }.to_owned());
    row("last commit", store.last_commit_time.map_or("none yet".to_owned(), |at| age(Some(&at)) + " ago"));
    row("workers", format!("{}, of which {} connected", counts.workers, counts.sessions));
    let on_workers = counts.assigned_tasks + counts.running_tasks;
    let (waiting, asking) = (counts.pending_tasks + counts.queued_tasks, counts.input_required_tasks);
    row("tasks", format!("{on_workers} on workers, {asking} wait for a person, {waiting} wait"));
    context.out.table(&table)?;
    for cause in &status.causes {
        context.out.line(&format!("\n{}: {}", clean(&cause.code), clean(&cause.message)))?;
        if !cause.hint.is_empty() {
            context.out.line(&format!("  {}", clean(&cause.hint)))?;
        }
    }
    Ok(exit)
}

async fn loops(context: &Context) -> anyhow::Result<Exit> {
    let loops = context.client.list_loops(ListLoopsRequest {}).await?.loops;
    if !context.out.for_eyes() {
        context.out.list("loops", &loops)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["LOOP", "STATE", "LAST SUCCESS", "SUCCEEDED", "FAILED", "WHAT"]);
    for one in &loops {
        let (state, paint) = match one.state() {
            LoopState::Waiting => ("waiting", Paint::Plain),
            LoopState::Working => ("working", Paint::Busy),
            LoopState::Failing => ("failing", Paint::Bad),
            LoopState::Stuck => ("stuck", Paint::Bad),
            LoopState::Ended | LoopState::Unspecified => ("ended", Paint::Bad),
        };
        let what = if one.error.is_empty() { &one.description } else { &one.error };
        let last = one.last_success_time.as_ref();
        let plain = |text: String| (text, Paint::Plain);
        table.row([
            plain(one.name.clone()),
            (state.to_owned(), paint),
            plain(last.map_or("never".to_owned(), |at| age(Some(at)) + " ago")),
            plain(one.succeeded.to_string()),
            plain(one.failed.to_string()),
            plain(what.clone()),
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
    if context.out.for_eyes() {
        context.out.line(&clean(&now.filter))?;
    } else {
        context.out.value(&now)?;
    }
    Ok(Exit::Ok)
}

async fn breakers(context: &Context) -> anyhow::Result<Exit> {
    let breakers = context.client.get_system_status(GetSystemStatusRequest {}).await?.breakers;
    if !context.out.for_eyes() {
        context.out.list("breakers", &breakers)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAMESPACE", "AGENT", "GETS", "UNTIL", "FAILURES", "LAST"]);
    for one in &breakers {
        let (namespace, agent) = names::parse(&one.agent, "agents").unwrap_or_default();
        let (gets, paint) = match one.state() {
            BreakerState::Closed | BreakerState::Unspecified => ("everything", Paint::Good),
            BreakerState::Open => ("nothing", Paint::Bad),
            BreakerState::HalfOpen => ("one task", Paint::Waiting),
        };
        let plain = |text: String| (text, Paint::Plain);
        table.row([
            plain(namespace.to_owned()),
            plain(agent.to_owned()),
            (gets.to_owned(), paint),
            plain(time(one.until_time.as_ref())),
            plain(one.failures.to_string()),
            plain(one.message.clone()),
        ]);
    }
    if table.is_empty() {
        context.talk.say("every agent gets what waits for it");
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

async fn reset_breaker(context: &Context, agent: &str) -> anyhow::Result<Exit> {
    let name = context.agent(agent)?;
    let before = context.client.reset_breaker(ResetBreakerRequest { name }).await?;
    if !context.out.for_eyes() {
        context.out.value(&before)?;
    } else if before.breaker.is_some() {
        context.talk.say(&format!("{agent} gets all that waits for it"));
    } else {
        context.talk.say(&format!("{agent} got all that waits for it already"));
    }
    Ok(Exit::Ok)
}
