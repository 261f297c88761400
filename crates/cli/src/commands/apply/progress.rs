//! Follows applied tasks and workflows to their ends: progress bars of tasks on a terminal, lines elsewhere, tables at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rota_proto::names;
use rota_proto::v1::{Task, TaskState, Workflow};

use crate::commands::signals::Interrupt;
use crate::commands::track::track;
use crate::commands::{outcome, state_of, workflow, worst};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, elapsed, first_line, name, reason, results, state};

/// Maximum number of progress bars of single tasks.
const MAX_BARS: usize = 10;
/// Maximum number of workflows that are followed at a time: servers allow about two hundred streams of a connection.
const MAX_WORKFLOWS: usize = 50;

pub(super) async fn wait(
    context: &Context,
    mut tasks: Vec<Task>,
    mut workflows: Vec<Workflow>,
) -> anyhow::Result<Exit> {
    let mut interrupt = Interrupt::listen()?;
    let mut bars = Bars::new(context, tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        bars.show(context, index, None, task);
    }
    let mut updates = track(context, &tasks).fuse();
    let follow = |(index, name): (usize, String)| async move {
        let ended = workflow::to_end(context, &name, async |_| Ok(())).await;
        (index, ended)
    };
    let names: Vec<_> = workflows.iter().map(|one| one.name.clone()).enumerate().collect();
    let mut ends = stream::iter(names).map(follow).buffer_unordered(MAX_WORKFLOWS).fuse();
    while !(updates.is_done() && ends.is_done()) {
        tokio::select! {
            update = updates.next(), if !updates.is_done() => {
                let Some(update) = update else { continue };
                let (index, task) = update?;
                bars.show(context, index, Some(state_of(&tasks[index])), &task);
                tasks[index] = task;
            }
            end = ends.next(), if !ends.is_done() => {
                let Some((index, ended)) = end else { continue };
                workflows[index] = ended?;
                bars.ended(context, &workflows[index]);
            }
            () = interrupt.received() => {
                bars.clear();
                continues(context, &tasks, &workflows);
                return Ok(Exit::Interrupted);
            }
        }
    }
    bars.clear();
    // Tasks that had finished before are read again, since lists and creations carry no results.
    for task in
        tasks.iter_mut().filter(|task| task.status.as_ref().is_none_or(|status| status.result.is_none()))
    {
        let request = rota_proto::v1::GetTaskRequest { name: task.name.clone() };
        *task = context.client.get_task(request).await?;
    }
    if context.out.is_human() {
        context.out.table(&results(&tasks))?;
        context.out.table(&table(&workflows))?;
    } else if workflows.is_empty() {
        context.out.list("tasks", &tasks)?;
    } else {
        let tasks = tasks.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        let workflows = workflows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        context.out.lists(vec![("tasks", tasks), ("workflows", workflows)])?;
    }
    let of_workflows = workflows.iter().map(|one| workflow::exit(one).unwrap_or(Exit::Failed));
    Ok(worst(tasks.iter().map(outcome).chain(of_workflows)))
}

fn name_of(workflow: &Workflow) -> &str {
    if workflow.alias.is_empty() { names::last(&workflow.name) } else { &workflow.alias }
}

fn continues(context: &Context, tasks: &[Task], workflows: &[Workflow]) {
    let open: Vec<_> = tasks.iter().filter(|task| !state_of(task).is_final()).map(name).collect();
    if !open.is_empty() {
        context.reporter.line(&format!("\nThe tasks continue. Wait again: rota wait {}", open.join(" ")));
        context.reporter.line(&format!("Cancel them:                    rota cancel {}", open.join(" ")));
    }
    for one in workflows.iter().filter(|one| workflow::exit(one).is_none()) {
        context
            .reporter
            .line(&format!("The workflow continues: rota workflow watch {}", names::last(&one.name)));
    }
}

fn table(workflows: &[Workflow]) -> Table {
    let mut table = Table::new(&["WORKFLOW", "STATE", "RAN", "REASON"]);
    for one in workflows {
        let status = one.status.clone().unwrap_or_default();
        let ran = elapsed(one.create_time.as_ref(), status.end_time.as_ref());
        table.row([
            (name_of(one).to_owned(), Paint::Plain),
            workflow::state(&status),
            (ran, Paint::Plain),
            (first_line(&status.message, 80), Paint::Plain),
        ]);
    }
    table
}

struct Bars {
    live: bool,
    all: MultiProgress,
    total: ProgressBar,
    single: BTreeMap<usize, ProgressBar>,
    finished: BTreeMap<usize, TaskState>,
}

impl Bars {
    fn new(context: &Context, count: usize) -> Self {
        let live = context.reporter.is_terminal();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let total =
            all.add(ProgressBar::new(count as u64).with_style(style("{wide_bar:.green} {pos}/{len} {msg}")));
        Self { live, all, total, single: BTreeMap::new(), finished: BTreeMap::new() }
    }

    fn show(&mut self, context: &Context, index: usize, before: Option<TaskState>, task: &Task) {
        let now = state_of(task);
        if !self.live && before != Some(now) {
            let why = task.status.as_deref().map(reason).unwrap_or_default();
            context.reporter.line(format!("{} {} {why}", name(task), state(now)).trim_end());
        }
        if now.is_final() {
            self.finished.insert(index, now);
            if let Some(bar) = self.single.remove(&index) {
                bar.finish_and_clear();
            }
            let failed = self.finished.values().filter(|state| **state != TaskState::Succeeded).count();
            self.total.set_position(self.finished.len() as u64);
            self.total.set_message(if failed == 0 {
                String::new()
            } else {
                format!("{failed} unsuccessful")
            });
            return;
        }
        if !matches!(now, TaskState::Assigned | TaskState::Running | TaskState::InputRequired) {
            // It is pending again, so its bar is free for a running task.
            if let Some(bar) = self.single.remove(&index) {
                bar.finish_and_clear();
            }
            return;
        }
        if !self.single.contains_key(&index) && self.single.len() < MAX_BARS {
            let bar = ProgressBar::new(100)
                .with_style(style("{spinner:.cyan} {prefix:24!} {bar:20.cyan} {elapsed:>4} {wide_msg}"))
                .with_prefix(first_line(name(task), 24));
            let bar = self.all.insert_before(&self.total, bar);
            if self.live {
                bar.enable_steady_tick(Duration::from_millis(120));
            }
            self.single.insert(index, bar);
        }
        if let Some(bar) = self.single.get(&index) {
            let progress =
                task.status.as_ref().and_then(|status| status.progress.clone()).unwrap_or_default();
            bar.set_position((progress.fraction * 100.0) as u64);
            bar.set_message(task.status.as_deref().map(reason).unwrap_or_default());
        }
    }

    fn ended(&self, context: &Context, one: &Workflow) {
        let (state, _) = workflow::state(&one.status.clone().unwrap_or_default());
        let line = format!("workflow/{} {state}", name_of(one));
        if !self.live || self.all.println(&line).is_err() {
            context.reporter.line(&line);
        }
    }

    fn clear(&self) {
        self.single.values().for_each(ProgressBar::finish_and_clear);
        self.total.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
