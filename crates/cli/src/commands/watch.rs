//! `rota watch`: follows one task's log, or a live table of a namespace's tasks.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use rota_proto::v1::{GetTaskRequest, ListTasksRequest, Task};
use tokio::time::Instant;

use super::follow::{Destination, View, to_end};
use super::signals::Interrupt;
use super::{outcome, state_of};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Format, name, reason, state, tasks};

const EXAMPLES: &str = "\
Examples:
  rota watch
  rota watch build
  rota watch -A -o jsonl";

/// Follow a task, or all tasks of a namespace, live
///
/// With a task, follows its log to the end and exits with the code of its outcome. Ctrl-C leaves tasks running.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Watch {
    /// Id or name of the task [default: all tasks of the namespace]
    pub task: Option<String>,
    /// Include all namespaces
    #[arg(long, short = 'A', conflicts_with = "task")]
    pub all_namespaces: bool,
    /// Maximum number of tasks in the table: unfinished tasks, then those finished last
    #[arg(long, value_name = "COUNT", default_value_t = 30)]
    pub limit: usize,
}

/// Timeout for the first message of the stream, after which tasks are listed without it.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_millis(500);

impl Watch {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let Some(given) = &self.task else { return self.all(context).await };
        let task = context.client.get_task(GetTaskRequest { name: context.task(given)? }).await?;
        let mut view = View::new(context, Destination::Stdout, false);
        let ended = to_end(context, &task.name, 0, &mut view).await?;
        Ok(ended.map_or(Exit::Interrupted, |task| outcome(&task)))
    }

    async fn all(&self, context: &Context) -> anyhow::Result<Exit> {
        let mut screen = Screen::new(context, self);
        let parent = context.parent(self.all_namespaces);
        let mut changes = context.client.watch_tasks(parent.clone(), "", true);
        // The stream is opened before tasks are listed, so that no change is missed in between.
        let first =
            tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, changes.next()).await.ok().flatten().transpose()?;
        screen.load(context, &parent, self.limit).await?;
        if let Some(task) = first.and_then(|change| change.task) {
            screen.change(context, task)?;
        }
        let mut interrupt = Interrupt::listen()?;
        screen.draw(context)?;
        loop {
            let change = tokio::select! {
                change = changes.next() => change,
                () = tokio::time::sleep_until(screen.due()) => {
                    screen.draw(context)?;
                    continue;
                }
                () = interrupt.received() => return Ok(Exit::Interrupted),
            };
            let Some(change) = change.transpose()? else { return Ok(Exit::Ok) };
            if change.resync {
                screen.load(context, &parent, self.limit).await?;
            }
            if let Some(task) = change.task {
                screen.change(context, task)?;
            }
        }
    }
}

/// Display of tasks: on a terminal a table that is redrawn, elsewhere a line for each change.
struct Screen {
    live: bool,
    all: bool,
    limit: usize,
    tasks: BTreeMap<String, Task>,
    drawn_lines: usize,
    drawn_at: Instant,
    dirty: bool,
}

impl Screen {
    fn new(context: &Context, watch: &Watch) -> Self {
        Self {
            live: context.out.is_human() && std::io::stdout().is_terminal(),
            all: watch.all_namespaces,
            limit: watch.limit,
            tasks: BTreeMap::new(),
            drawn_lines: 0,
            drawn_at: Instant::now(),
            dirty: true,
        }
    }

    async fn load(&mut self, context: &Context, parent: &str, limit: usize) -> anyhow::Result<()> {
        let request = ListTasksRequest { parent: parent.to_owned(), ..Default::default() };
        let listed = context.client.all_tasks(request, Some(limit.max(200))).await?;
        self.tasks = listed.into_iter().map(|task| (task.uid.clone(), task)).collect();
        self.dirty = true;
        Ok(())
    }

    fn change(&mut self, context: &Context, task: Task) -> anyhow::Result<()> {
        let before = self.tasks.insert(task.uid.clone(), task.clone());
        self.dirty = true;
        if self.live {
            return Ok(());
        }
        if !context.out.is_human() {
            let mut out = context.out.clone();
            if out.format == Format::Json {
                out.format = Format::Jsonl;
            }
            return out.value(&task);
        }
        if before.is_none_or(|before| state_of(&before) != state_of(&task)) {
            let why = task.status.as_deref().map(reason).unwrap_or_default();
            let line = format!("{} {} {why}", name(&task), state(state_of(&task)));
            context.out.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Returns the time of the next redraw: soon after a change, and each second for the times.
    fn due(&self) -> Instant {
        self.drawn_at + Duration::from_millis(if self.dirty { 100 } else { 1000 })
    }

    fn draw(&mut self, context: &Context) -> anyhow::Result<()> {
        (self.drawn_at, self.dirty) = (Instant::now(), false);
        if !self.live {
            return Ok(());
        }
        let rows: Vec<_> = self.shown();
        let text = match rows.is_empty() {
            true => "no tasks yet".to_owned(),
            false => tasks(&rows, self.all).render(context.out.colored()),
        };
        let up = match self.drawn_lines {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A"),
        };
        // Lines are cleared from their end, and the screen below the last line, which avoids flicker.
        let body: String = text.lines().map(|line| format!("{line}\u{1b}[K\n")).collect();
        self.drawn_lines = text.lines().count();
        Ok(context.out.bytes(format!("{up}\r\u{1b}[?7l{body}\u{1b}[J\u{1b}[?7h").as_bytes())?)
    }

    /// Returns unfinished tasks, the oldest first, then finished ones, the latest first.
    fn shown(&self) -> Vec<Task> {
        let (mut ended, active): (Vec<_>, Vec<_>) =
            self.tasks.values().cloned().partition(|task| state_of(task).is_final());
        let end = |task: &Task| {
            task.status
                .as_ref()
                .and_then(|status| status.end_time.as_ref())
                .map(|time| (time.seconds, time.nanos))
        };
        ended.sort_by_key(|task| std::cmp::Reverse(end(task)));
        active.into_iter().chain(ended).take(self.limit).collect()
    }
}
