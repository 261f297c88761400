//! The commands, one file each, and helpers that several of them share.

pub mod acknowledge;
pub mod admin;
pub mod agents;
mod alerts;
pub mod answer;
pub mod apply;
pub mod artifacts;
pub mod attach;
pub mod bench;
mod browser_sessions;
mod budgets;
pub mod bulk;
pub mod cancel;
pub mod capabilities;
pub mod changes;
pub mod clean;
pub mod completion;
mod configuration;
pub mod contexts;
pub mod continuing;
pub mod costs;
mod created;
pub mod dead_letters;
pub mod delete;
pub mod describe;
pub mod dev;
pub mod doctor;
pub mod drain;
mod editor;
pub mod events;
pub mod explain;
pub mod export;
mod follow;
pub mod get;
pub mod inject;
pub mod kind;
pub mod login;
pub mod logs;
pub mod metrics;
pub mod operator;
mod outcome;
mod pairs;
pub mod permissions;
pub mod plan;
mod replica;
pub mod report;
pub mod restore;
pub mod result;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod search;
mod serve;
pub mod server;
mod signals;
mod storage;
mod task_filter;
pub mod template;
pub mod threads;
pub mod top;
mod track;
pub mod transcript;
pub mod transfer;
pub mod ui;
pub mod update;
pub mod version;
pub mod wait;
mod waiting;
pub mod watch;
pub mod worker;
mod worker_tokens;
pub mod workers;
pub mod workflow;

use rota_client::Code;
use rota_crds::HumanDuration;
use rota_proto::v1::{GetTaskRequest, Task, TaskState};
use rota_telemetry::clock;

use self::outcome::outcome;
use crate::context::Context;
use crate::exit::Exit;

/// Returns the id of a task given as an id or a name.
async fn id_of(context: &Context, given: &str) -> anyhow::Result<String> {
    let id = given.strip_prefix("task/").unwrap_or(given);
    if uuid::Uuid::try_parse(id).is_ok() {
        return Ok(id.to_owned());
    }
    Ok(context.client.get_task(GetTaskRequest { name: context.task(given)? }).await?.uid)
}

/// Returns when a time span that ends now began.
fn since(span: &HumanDuration) -> pbjson_types::Timestamp {
    let span = i64::try_from(span.0.as_secs()).unwrap_or(i64::MAX);
    let seconds = (clock::unix_micros() / 1_000_000).saturating_sub(span);
    pbjson_types::Timestamp { seconds, nanos: 0 }
}

/// Returns the state of a task.
fn state_of(task: &Task) -> TaskState {
    task.status.as_ref().map_or(TaskState::Unspecified, |status| status.state())
}

/// Returns the exit code for several tasks: that of the worst outcome.
fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
    let weight = |exit: &Exit| match exit {
        Exit::Ok => 0,
        Exit::Cancelled => 1,
        Exit::NotFound => 2,
        _ => 3,
    };
    exits.into_iter().max_by_key(weight).unwrap_or(Exit::Ok)
}

/// Maps "not found" to `None`.
fn found<T>(answer: Result<T, rota_client::Error>) -> Result<Option<T>, rota_client::Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Prints how to follow or cancel a task that continues without this command.
fn print_continues(context: &Context, task: &str) {
    let task = rota_proto::names::last(task);
    context.reporter.line(&format!("\nThe task continues. Follow it again: rota watch {task}"));
    context.reporter.line(&format!("Cancel it:                           rota cancel {task}"));
}
