//! Follows one task's log to its end, or to Ctrl-C, and prints it.

use std::collections::BTreeSet;
use std::io::IsTerminal;

use futures::StreamExt;
use rota_client::watch::Watch;
use rota_proto::v1::{Event, MessageDelta, Task, TaskState, WatchTaskResponse, event};

use super::print_continues;
use super::signals::Interrupt;
use super::waiting::{self, Waiting};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Printer};

/// Destination of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Standard output: the log is the command's data.
    Stdout,
    /// Standard error, next to the command's data.
    Stderr,
    /// Not printed.
    None,
}

/// Printer of a task's events.
#[derive(Debug)]
pub struct View {
    to: Destination,
    raw: bool,
    times: bool,
    pub printer: Printer,
    /// Workers that the task was assigned to.
    pub workers: BTreeSet<String>,
}

impl View {
    pub fn new(context: &Context, to: Destination, times: bool) -> Self {
        let (colored, terminal) = match to {
            Destination::Stdout => (context.out.colored(), std::io::stdout().is_terminal()),
            _ => (context.reporter.colored(), context.reporter.is_terminal()),
        };
        let raw = to == Destination::Stdout && !context.out.is_human();
        Self { to, raw, times, printer: Printer::new(colored, times, terminal), workers: BTreeSet::new() }
    }

    /// Opens the log of a task after a position, with parts of messages if they can be shown.
    pub fn watch(&self, context: &Context, name: &str, after: i64) -> Watch<WatchTaskResponse> {
        let streams = self.to != Destination::None && !self.raw && !self.times;
        match streams {
            true => context.client.watch_task_streamed(name, after),
            false => context.client.watch_task(name, after),
        }
    }

    pub fn show_deltas(&mut self, context: &Context, deltas: &[MessageDelta]) -> anyhow::Result<()> {
        for delta in deltas {
            let bytes = self.printer.print_delta(delta);
            self.write(context, &bytes)?;
        }
        Ok(())
    }

    pub fn show(&mut self, context: &Context, events: &[Event]) -> anyhow::Result<()> {
        let assigned = events.iter().filter_map(|event| match &event.kind {
            Some(event::Kind::State(change)) if change.to() == TaskState::Assigned => Some(&change.worker),
            _ => None,
        });
        self.workers.extend(assigned.cloned());
        if self.to == Destination::None {
            return Ok(());
        }
        for event in events {
            if self.raw {
                raw(context, event)?;
                continue;
            }
            let bytes = self.printer.print(event);
            self.write(context, &bytes)?;
        }
        Ok(())
    }

    /// Ends a line that is still open.
    pub fn finish(&mut self, context: &Context) -> anyhow::Result<()> {
        let bytes = self.printer.finish();
        self.write(context, &bytes)
    }

    fn write(&self, context: &Context, bytes: &[u8]) -> anyhow::Result<()> {
        match self.to {
            Destination::Stdout if !bytes.is_empty() => context.out.bytes(bytes)?,
            Destination::Stderr if !bytes.is_empty() => context.reporter.bytes(bytes),
            _ => {}
        }
        Ok(())
    }
}

/// Prints an event for programs: one document each, since a followed log is unbounded.
fn raw(context: &Context, event: &Event) -> anyhow::Result<()> {
    let mut out = context.out.clone();
    match out.format {
        Format::Yaml => out.line("---")?,
        _ => out.format = Format::Jsonl,
    }
    out.value(event)
}

/// Reads the current log of a task, entry by entry.
pub async fn log(context: &Context, task: &Task, mut each: impl FnMut(Event)) -> anyhow::Result<()> {
    let until = task.status.as_ref().map_or(0, |status| status.log_seq);
    let (mut seen, mut watch) = (0, context.client.watch_task(task.name.clone(), 0));
    while seen < until {
        let Some(answer) = watch.next().await.transpose()? else { break };
        for event in answer.events.into_iter().filter(|event| event.log_seq <= until) {
            seen = event.log_seq;
            each(event);
        }
    }
    Ok(())
}

/// Follows a task to its end. `None` means that Ctrl-C came first, which has been reported.
pub async fn to_end(
    context: &Context,
    name: &str,
    after: i64,
    view: &mut View,
) -> anyhow::Result<Option<Task>> {
    let mut interrupt = Interrupt::listen()?;
    let mut watch = view.watch(context, name, after);
    let mut last: Option<Task> = None;
    let mut waiting = Waiting::new();
    loop {
        let waits = view.to != Destination::None
            && last.as_ref().is_none_or(|task| !waiting::pending(std::slice::from_ref(task)).is_empty());
        let item = tokio::select! {
            item = watch.next() => item,
            () = waiting.due(), if waits => {
                view.finish(context)?;
                waiting.report(context, &[name]).await;
                continue;
            }
            () = interrupt.received() => {
                view.finish(context)?;
                print_continues(context, name);
                return Ok(None);
            }
        };
        match item {
            Some(answer) => {
                let answer = answer?;
                waiting.task_changed();
                view.show(context, &answer.events)?;
                view.show_deltas(context, &answer.deltas)?;
                last = answer.task.or(last);
            }
            None => break,
        }
    }
    view.finish(context)?;
    match last {
        Some(task) => Ok(Some(task)),
        None => Err(Failure::new(Exit::Failed, "the server closed the log before the task finished").into()),
    }
}
