//! What a runtime is: it turns one attempt into events and one outcome. It knows nothing of
//! sessions, fences, acknowledgements or other attempts.

pub(crate) mod bounds;
pub mod claude;
pub mod command;
pub mod context;
pub mod scripted;
pub(crate) mod tail;

use std::path::PathBuf;

use async_trait::async_trait;
use rota_proto::v1::{Failure, FailureClass, Notice, Severity, TaskInput, TaskResult, Usage, event};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::Redactor;
use tokio::sync::{mpsc, watch};

/// One attempt, as a runtime gets it.
#[derive(Debug)]
pub struct Attempt {
    /// What was assigned. Its secrets are already in `environment`, and taken out here.
    pub assign: Assign,
    /// Where it works.
    pub workspace: PathBuf,
    /// A directory of this attempt alone, outside the workspace; removed at its end.
    pub scratch: PathBuf,
    /// The whole environment of its processes; nothing is inherited.
    pub environment: Environment,
    /// Takes its secrets out of what is cut before it is told.
    pub redactor: Redactor,
}

/// Environment of an attempt. Holds secrets, hence prints names only.
#[derive(Default, Clone)]
pub struct Environment(pub std::collections::BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How a runtime talks while it works.
#[derive(Debug)]
pub struct Channels {
    /// What happens, in order. Bounded: a runtime that is faster than the control plane waits.
    pub events: mpsc::Sender<event::Kind>,
    /// What people give it.
    pub inputs: mpsc::Receiver<TaskInput>,
    /// When it shall end. A runtime that sees `Some` ends all of its processes within the grace, then returns.
    pub stop: watch::Receiver<Option<Stop>>,
}

/// The request to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub cause: StopCause,
    /// Until the kill.
    pub grace: std::time::Duration,
}

/// Why an attempt shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// Somebody cancelled the task.
    Cancelled,
    /// Its total time is over.
    Timeout,
    /// Nothing was heard of it for too long.
    Silence,
    /// It no longer counts, or the worker ends.
    Abandoned,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Outcome {
    /// Well, badly, or as told.
    pub ending: Ending,
    /// What it used, in all, where the runtime knows.
    pub usage: Option<Usage>,
    /// The runtime's session, with which a next attempt could go on; empty for none.
    pub runtime_session: String,
}

/// Well, badly, or as told.
#[derive(Debug)]
pub enum Ending {
    /// With a result.
    Succeeded(TaskResult),
    /// Without.
    Failed(Failure),
    /// Because of [`Channels::stop`]; `by` is `interrupt`, `terminate` or `kill`.
    Stopped {
        /// What it took.
        by: &'static str,
    },
}

/// A way of doing tasks.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Does one attempt. When it returns, no process of the attempt is left.
    async fn run(&self, attempt: Attempt, channels: Channels) -> Outcome;
}

impl Outcome {
    /// An ending and nothing else.
    pub fn new(ending: Ending) -> Self {
        Self { ending, usage: None, runtime_session: String::new() }
    }

    /// A failure and nothing else.
    pub fn failed(class: FailureClass, message: impl Into<String>) -> Self {
        Self::new(Ending::Failed(failure(class, message)))
    }
}

/// A failure with the severity that its class usually has.
pub(crate) fn failure(class: FailureClass, message: impl Into<String>) -> Failure {
    let severity = match class {
        FailureClass::Auth => Severity::Critical,
        FailureClass::RateLimit | FailureClass::Overload => Severity::Low,
        FailureClass::Agent
        | FailureClass::Hang
        | FailureClass::Crash
        | FailureClass::Protocol
        | FailureClass::Environment
        | FailureClass::WorkerLost => Severity::Medium,
        _ => Severity::High,
    };
    Failure { class: class.into(), severity: severity.into(), message: message.into(), ..Failure::default() }
}

/// A remark for the task's log.
pub(crate) fn notice(severity: Severity, code: &str, message: impl Into<String>) -> event::Kind {
    event::Kind::Notice(Notice { severity: severity.into(), code: code.to_owned(), message: message.into() })
}

/// Waits until the attempt shall end. Never returns when nobody can ask for that any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await.map(|stop| stop.clone()) {
        Ok(Some(stop)) => stop,
        _ => std::future::pending().await,
    }
}
