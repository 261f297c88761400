//! Follows one task's log to its end, or to Ctrl-C, and shows it.

use std::io::IsTerminal;

use futures::StreamExt;
use rota_proto::v1::{Event, Task};

use super::say_goes_on;
use super::signals::Interrupt;
use super::waiting::{self, Waiting};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Printer};

/// Where a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// It is the data.
    Stdout,
    /// It is talk beside the data.
    Stderr,
    /// Nowhere.
    Nowhere,
}

/// Shows a task's events.
#[derive(Debug)]
pub struct View {
    to: To,
    raw: bool,
    pub printer: Printer,
}

impl View {
    pub fn new(context: &Context, to: To, times: bool) -> Self {
        let (colored, terminal) = match to {
            To::Stdout => (context.out.colored(), std::io::stdout().is_terminal()),
            _ => (context.talk.colored(), context.talk.is_terminal()),
        };
        let raw = to == To::Stdout && !context.out.for_eyes();
        Self { to, raw, printer: Printer::new(colored, times, terminal) }
    }

    /// Shows events.
    pub fn show(&mut self, context: &Context, events: &[Event]) -> anyhow::Result<()> {
        if self.to == To::Nowhere {
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
            To::Stdout if !bytes.is_empty() => context.out.bytes(bytes)?,
            To::Stderr if !bytes.is_empty() => context.talk.bytes(bytes),
            _ => {}
        }
        Ok(())
    }
}

/// An event for programs: a document each, since a log has no end while it is followed.
fn raw(context: &Context, event: &Event) -> anyhow::Result<()> {
    let mut out = context.out.clone();
    match out.format {
        Format::Yaml => out.line("---")?,
        _ => out.format = Format::Jsonl,
    }
    out.value(event)
}

/// A task's log as it stands, entry by entry.
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

/// Follows a task to its end. `None` means that Ctrl-C came first, which has been talked about.
pub async fn to_end(
    context: &Context,
    name: &str,
    after: i64,
    view: &mut View,
) -> anyhow::Result<Option<Task>> {
    let mut interrupt = Interrupt::listen()?;
    let mut watch = context.client.watch_task(name, after);
    let mut last: Option<Task> = None;
    let mut waiting = Waiting::new();
    loop {
        let waits = view.to != To::Nowhere
            && last.as_ref().is_none_or(|task| !waiting::waiting(std::slice::from_ref(task)).is_empty());
        let item = tokio::select! {
            item = watch.next() => item,
            () = waiting.due(), if waits => {
                view.finish(context)?;
                waiting.look(context, &[name]).await;
                continue;
            }
            () = interrupt.heard() => {
                view.finish(context)?;
                say_goes_on(context, name);
                return Ok(None);
            }
        };
        match item {
            Some(answer) => {
                let answer = answer?;
                waiting.moved();
                view.show(context, &answer.events)?;
                last = answer.task.or(last);
            }
            None => break,
        }
    }
    view.finish(context)?;
    match last {
        Some(task) => Ok(Some(task)),
        None => {
            Err(Failure::new(Exit::Failed, "the server ended the log without saying how the task did").into())
        }
    }
}
