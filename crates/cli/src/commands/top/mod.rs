//! `rota top`: follows pools, queue and tasks live in a terminal, or prints one frame.

mod model;
mod screen;
mod view;
mod view_options;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use rota_client::watch::Watch;
use rota_proto::v1::{
    ListTasksRequest, Task, TaskFilter, TaskState, WatchAgentsResponse, WatchDemandResponse,
};
use rota_telemetry::{clock, env};

use self::model::{MAX_TASKS, Model};
use self::view::View;
use self::view_options::{Show, Sort, ViewOptions};
use crate::context::Context;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota top
  rota top -A --show running
  rota top --once
  rota top -o json";

/// Follow pools, queue, running tasks and cost live
///
/// Keys: q quits, s changes the order, f the filter; arrows, Page Up and Page Down scroll. Read-only: tasks continue
/// when it ends.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Top {
    /// Print one frame and exit
    #[arg(long)]
    pub once: bool,
    /// Include all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Order of tasks
    #[arg(long, value_name = "ORDER", value_enum, default_value_t)]
    pub sort: Sort,
    /// Tasks to show
    #[arg(long, value_name = "FILTER", value_enum, default_value_t)]
    pub show: Show,
}

/// Timeout for the first message of the stream, after which tasks are listed without it.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_millis(500);
/// Columns of a frame without a terminal.
const DEFAULT_WIDTH: u16 = 120;
/// Maximum number of finished tasks fetched, for the cost of the last minute.
const MAX_FINISHED: usize = 500;

impl Top {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let options = ViewOptions { sort: self.sort, show: self.show };
        if !self.once && context.out.is_human() {
            let dumb = env::var("TERM").is_some_and(|term| term == "dumb");
            if dumb || !std::io::stdout().is_terminal() {
                return Err(Failure::usage("`rota top` requires a terminal")
                    .hint("print one frame with `rota top --once`, or a snapshot with `rota top -o json`")
                    .into());
            }
            return Box::pin(screen::run(context, &self, options)).await;
        }
        let model = self.fetch(context).await?;
        let snapshot = model.snapshot(options, clock::now());
        if !context.out.is_human() {
            return context.out.value(&snapshot).map(|()| Exit::Ok);
        }
        let width = match std::io::stdout().is_terminal() {
            true => crossterm::terminal::size().ok(),
            false => None,
        };
        // A terminal without a known size reports 0 columns.
        let width = width.map_or(DEFAULT_WIDTH, |(width, _)| if width == 0 { DEFAULT_WIDTH } else { width });
        let title = self.title(context);
        let view = View {
            snapshot: &snapshot,
            options,
            title: &title,
            all_namespaces: self.all_namespaces,
            colored: false,
            disconnected: None,
            skip: 0,
        };
        context.out.line(&view.text(width))?;
        Ok(Exit::Ok)
    }

    /// Fetches the current state once.
    async fn fetch(&self, context: &Context) -> anyhow::Result<Model> {
        let parent = context.parent(self.all_namespaces);
        let mut model = Model::default();
        let _watches = watch(context, &parent, &mut model).await?;
        load(context, &parent, &mut model).await?;
        Ok(model)
    }

    fn title(&self, context: &Context) -> String {
        let namespace = if self.all_namespaces { "all namespaces" } else { &context.namespace };
        format!("{}  {namespace}", context.client.endpoint())
    }
}

/// Watches agents and demand, and receives their current state. A watch that has begun is resumed when the connection is
/// lost.
async fn watch(
    context: &Context,
    parent: &str,
    model: &mut Model,
) -> anyhow::Result<(Watch<WatchAgentsResponse>, Watch<WatchDemandResponse>)> {
    let mut agents = context.client.watch_agents(parent.to_owned());
    while !model.synced {
        let Some(change) = agents.next().await.transpose()? else { break };
        model.agent(change);
    }
    let mut demand = context.client.watch_demand(parent.to_owned());
    if let Some(now) = demand.next().await.transpose()? {
        model.demand(now);
    }
    Ok((agents, demand))
}

/// Loads unfinished tasks, and the latest finished ones.
async fn load(context: &Context, parent: &str, model: &mut Model) -> anyhow::Result<()> {
    let list = async |states: &[TaskState], limit: usize| {
        let states = states.iter().map(|state| (*state).into()).collect();
        let filter = Some(TaskFilter { states, ..TaskFilter::default() });
        let request = ListTasksRequest { parent: parent.to_owned(), filter, ..ListTasksRequest::default() };
        context.client.all_tasks(request, Some(limit)).await
    };
    use TaskState as S;
    let mut tasks: Vec<Task> = list(&[S::Assigned, S::Running, S::InputRequired], MAX_TASKS).await?;
    tasks.extend(list(&[S::Succeeded, S::Failed, S::Cancelled], MAX_FINISHED).await?);
    let waiting = list(&[S::Pending, S::Queued], MAX_TASKS + 1).await?;
    let more = waiting.len() > MAX_TASKS;
    tasks.extend(waiting.into_iter().take(MAX_TASKS));
    model.load(tasks, more);
    model.forget(clock::now());
    Ok(())
}
