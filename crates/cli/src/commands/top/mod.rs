//! `rota top`: what the fleet does now, live in a terminal; or one look at it.

mod choice;
mod model;
mod screen;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use rota_proto::v1::{ListTasksRequest, Task, TaskFilter, TaskState};
use rota_telemetry::{clock, env};

use self::choice::{Choice, Show, Sort};
use self::model::{MOST, Model};
use self::view::View;
use crate::context::Context;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota top
  rota top -A --show running
  rota top --once
  rota top -o json";

/// Follow the fleet live: pools, queue, running tasks, cost
///
/// Keys: q quits, s sorts, f filters, the arrows and Page Up and Down scroll. Nothing is changed by it, and tasks go on
/// when it ends.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Top {
    /// Print one frame and end
    #[arg(long)]
    pub once: bool,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// How tasks are sorted
    #[arg(long, value_name = "ORDER", value_enum, default_value_t)]
    pub sort: Sort,
    /// Which tasks are shown
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub show: Show,
}

/// How long to wait for a stream's first word before looking around without it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Columns of a frame that goes to no terminal.
const WIDTH: u16 = 120;
/// Tasks that ended lately, among which those of the last minute are.
const ENDED: usize = 500;

impl Top {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let choice = Choice { sort: self.sort, show: self.show };
        if !self.once && context.out.for_eyes() {
            let dumb = env::var("TERM").is_some_and(|term| term == "dumb");
            if dumb || !std::io::stdout().is_terminal() {
                return Err(Failure::usage("this is no terminal in which `rota top` could draw")
                    .hint("print one frame with `rota top --once`, or a snapshot with `rota top -o json`")
                    .into());
            }
            return Box::pin(screen::run(context, &self, choice)).await;
        }
        let model = self.look(context).await?;
        let snapshot = model.snapshot(choice, clock::now());
        if !context.out.for_eyes() {
            return context.out.value(&snapshot).map(|()| Exit::Ok);
        }
        let width = match std::io::stdout().is_terminal() {
            true => crossterm::terminal::size().ok(),
            false => None,
        };
        // A terminal that was never told its size says that it has no columns.
        let width = width.map_or(WIDTH, |(width, _)| if width == 0 { WIDTH } else { width });
        let title = self.title(context);
        let view = View {
            snapshot: &snapshot,
            choice,
            title: &title,
            all_namespaces: self.all_namespaces,
            colored: false,
            lost: None,
            skip: 0,
        };
        context.out.line(&view.text(width))?;
        Ok(Exit::Ok)
    }

    /// One look at everything.
    async fn look(&self, context: &Context) -> anyhow::Result<Model> {
        let parent = context.parent(self.all_namespaces);
        let mut model = Model::default();
        let mut agents = context.client.watch_agents(parent.clone());
        while !model.synced {
            let Some(change) = agents.next().await.transpose()? else { break };
            model.agent(change);
        }
        let mut demand = context.client.watch_demand(parent.clone());
        if let Some(now) = demand.next().await.transpose()? {
            model.demand(now);
        }
        load(context, &parent, &mut model).await?;
        Ok(model)
    }

    fn title(&self, context: &Context) -> String {
        let namespace = if self.all_namespaces { "all namespaces" } else { &context.namespace };
        format!("{}  {namespace}", context.client.endpoint())
    }
}

/// The tasks that have not ended, and the latest of all, among which are those that ended just now.
async fn load(context: &Context, parent: &str, model: &mut Model) -> anyhow::Result<()> {
    let ask = async |states: &[TaskState], most: usize| {
        let states = states.iter().map(|state| (*state).into()).collect();
        let filter = Some(TaskFilter { states, ..TaskFilter::default() });
        let request = ListTasksRequest { parent: parent.to_owned(), filter, ..ListTasksRequest::default() };
        context.client.all_tasks(request, Some(most)).await
    };
    use TaskState as S;
    let mut tasks: Vec<Task> = ask(&[S::Assigned, S::Running, S::InputRequired], MOST).await?;
    tasks.extend(ask(&[S::Succeeded, S::Failed, S::Cancelled], ENDED).await?);
    let waiting = ask(&[S::Pending, S::Queued], MOST + 1).await?;
    let more = waiting.len() > MOST;
    tasks.extend(waiting.into_iter().take(MOST));
    model.load(tasks, more);
    model.forget(clock::now());
    Ok(())
}
