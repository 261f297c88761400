//! Runtimes: each turns one attempt into events and one report. Knows nothing of sessions, fences,
//! acknowledgements or other attempts.

pub mod claude;
pub mod command;
pub mod context;
pub mod deltas;
pub mod scripted;
pub(crate) mod structs;

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use rota_proto::v1::{Failure, FailureClass, TaskInput, TaskResult, Usage, WorkspaceMode, event};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::Redactor;
use tokio::sync::{mpsc, watch};

use crate::report::failure;
pub use crate::supervise::Environment;
use crate::supervise::Stop;

/// One attempt, as passed to a runtime.
#[derive(Debug)]
pub struct Attempt {
    /// The assignment. Its secrets have been moved to `environment`.
    pub assign: Box<Assign>,
    /// Working directory of its processes.
    pub workspace: PathBuf,
    /// Private directory outside the workspace, removed when the attempt ends.
    pub scratch: PathBuf,
    /// Complete environment of its processes; nothing is inherited.
    pub environment: Environment,
    /// Names of the variables in `environment` that are secrets.
    pub secret_names: BTreeSet<String>,
    /// Redactor for its secrets, for texts that the runtime truncates itself.
    pub redactor: Redactor,
    /// Id of the conversation that the runtime begins, if it has any.
    pub conversation: String,
    /// Set if the attempt continues the work of an earlier one, or of another task.
    pub continued: Option<Continued>,
    /// Messages to earlier attempts that the conversation does not have which it continues or resumes.
    pub unheard: Vec<String>,
    /// Set if the agent continues after it had finished: its work is not done.
    pub round: Option<Round>,
}

impl Attempt {
    /// Creates an attempt without directories, secrets and conversation.
    pub fn new(assign: Box<Assign>, redactor: Redactor) -> Self {
        Self {
            assign,
            workspace: PathBuf::new(),
            scratch: PathBuf::new(),
            environment: Environment::default(),
            secret_names: BTreeSet::new(),
            redactor,
            conversation: String::new(),
            continued: None,
            unheard: Vec::new(),
            round: None,
        }
    }
}

/// Work of an earlier attempt, or of another task, whose checkpoint is in the directories of this one.
#[derive(Debug)]
pub struct Continued {
    /// Its conversation; empty if the runtime has none.
    pub conversation: String,
    pub from: From,
    /// Whether the files of the workspace are those of the checkpoint.
    pub has_files: bool,
}

/// Origin of the work that an attempt continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// That of an earlier attempt of the task, which has waited for a person: the assignment has the answers.
    Waiting,
    /// That of an earlier attempt of the task, which was cut off for this reason.
    CutOff(String),
    /// That of another task: the prompt is what comes next in its conversation.
    Task,
}

/// Where a runtime has what a later attempt can continue from.
#[derive(Debug, Clone, Default)]
pub struct CheckpointFolder {
    /// Directory that programs of the attempt cannot replace.
    pub root: PathBuf,
    /// Folder within, which they can.
    pub within: PathBuf,
    /// Conversations, of which the one that was written to last is kept: `{id}.jsonl`, and the folder `{id}`. None: everything is.
    pub conversations: Vec<String>,
    /// Further folders that are kept: of conversations that this one has continued.
    pub folders: Vec<String>,
}

/// A round of an attempt after the first.
#[derive(Debug, Default)]
pub struct Round {
    /// Conversation that continues: [`RunReport::conversation`] of the round before.
    pub conversation: String,
    /// What the agent is sent.
    pub message: String,
    /// Usage of the rounds before, which counts in those that follow.
    pub used: Option<Usage>,
}

/// Channels between a runtime and the session while an attempt runs.
#[derive(Debug)]
pub struct Channels {
    /// Events, in order. Bounded: a runtime that is faster than the control plane has to wait.
    pub events: mpsc::Sender<event::Kind>,
    /// Parts of the messages among them, before they are complete.
    pub deltas: deltas::Deltas,
    /// Input from users: answers, decisions and messages.
    pub inputs: mpsc::Receiver<TaskInput>,
    /// Request to end. On `Some` the runtime ends all of its processes within the grace period and returns.
    pub stop: watch::Receiver<Option<Stop>>,
}

/// Report of a runtime on a finished attempt.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// Success, failure, or the end on request.
    pub outcome: RunOutcome,
    /// Total usage, where the runtime knows it.
    pub usage: Option<Usage>,
    /// Session of the runtime that a later attempt can resume; empty for none.
    pub runtime_session: String,
    /// Conversation that can go on within this attempt; empty for none.
    pub conversation: String,
    /// Whether it continued an earlier conversation, in which nothing was answered any more.
    pub unanswered: bool,
}

#[derive(Debug, Clone)]
pub enum RunOutcome {
    Succeeded(TaskResult),
    /// It failed, without a request to end.
    Failed(Failure),
    /// It ended because of [`Channels::stop`].
    Stopped {
        /// What it took: `interrupt`, `terminate` or `kill`.
        by: &'static str,
    },
}

/// Executes attempts of one kind of runtime.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Runs an attempt, or a further round of it. When this returns, none of the attempt's processes is left.
    async fn run(&self, attempt: &Attempt, channels: &mut Channels) -> RunReport;

    /// Returns where it has what a later attempt can continue from, if it can do so.
    fn checkpoint(&self, _attempt: &Attempt) -> Option<CheckpointFolder> {
        None
    }
}

impl RunReport {
    /// Creates a report without usage or session.
    pub fn new(outcome: RunOutcome) -> Self {
        Self {
            outcome,
            usage: None,
            runtime_session: String::new(),
            conversation: String::new(),
            unanswered: false,
        }
    }

    /// Creates the report of a failure without usage or session.
    pub fn failed(class: FailureClass, message: impl Into<String>) -> Self {
        Self::new(RunOutcome::Failed(failure(class, message)))
    }
}

/// Whether an attempt works in an existing directory.
pub(crate) fn in_place(assign: &Assign) -> bool {
    let workspace = assign.spec.as_ref().and_then(|spec| spec.workspace.as_ref());
    workspace.is_some_and(|workspace| workspace.mode() == WorkspaceMode::InPlace)
}
