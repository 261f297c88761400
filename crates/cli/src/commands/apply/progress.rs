//! Follows applied tasks to their ends: progress bars on a terminal, lines elsewhere, a table at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rota_proto::v1::{Task, TaskState};

use crate::commands::signals::Interrupt;
use crate::commands::track::track;
use crate::commands::{outcome, state_of, worst};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{first_line, name, reason, results, state};

/// Maximum number of progress bars of single tasks.
const MAX_BARS: usize = 10;

pub(super) async fn wait(context: &Context, mut tasks: Vec<Task>) -> anyhow::Result<Exit> {
    let mut interrupt = Interrupt::listen()?;
    let mut bars = Bars::new(context, tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        bars.show(context, index, None, task);
    }
    let mut updates = track(context, &tasks);
    loop {
        let update = tokio::select! {
            update = updates.next() => update,
            () = interrupt.received() => {
                bars.clear();
                let open: Vec<_> = tasks.iter().filter(|task| !state_of(task).is_final()).map(name).collect();
                context.reporter.line(&format!("\nThe tasks continue. Wait again: rota wait {}", open.join(" ")));
                context.reporter.line(&format!("Cancel them:                    rota cancel {}", open.join(" ")));
                return Ok(Exit::Interrupted);
            }
        };
        let Some(update) = update else { break };
        let (index, task) = update?;
        bars.show(context, index, Some(state_of(&tasks[index])), &task);
        tasks[index] = task;
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
    } else {
        context.out.list("tasks", &tasks)?;
    }
    Ok(worst(tasks.iter().map(outcome)))
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
            let why = task.status.as_ref().map(reason).unwrap_or_default();
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
            bar.set_message(task.status.as_ref().map(reason).unwrap_or_default());
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
