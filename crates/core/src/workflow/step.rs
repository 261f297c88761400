//! Record of a step.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Group, Resolved, StepState, TemplateRef, no, none, zero};
use crate::{TaskId, Timestamp, WorkflowKey};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Task,
    /// Another workflow, whose end is that of a task.
    Workflow,
    /// Decision of a person, with the time for it, and whether its absence approves.
    Approval {
        deadline: Option<Duration>,
        approves: bool,
    },
    Sleep {
        duration: Duration,
    },
    Signal {
        timeout: Option<Duration>,
    },
}

impl Kind {
    /// Whether the step ends with the tasks or workflows that the driver creates for it.
    pub fn is_created(self) -> bool {
        matches!(self, Self::Task | Self::Workflow)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Step {
    #[serde(skip)]
    pub workflow: WorkflowKey,
    #[serde(skip)]
    pub index: u32,
    pub name: String,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "no")]
    pub finally: bool,
    /// Whether its failure stops the workflow.
    #[serde(default, skip_serializing_if = "no")]
    pub stops: bool,
    /// Whether it has a compensation.
    #[serde(default, skip_serializing_if = "no")]
    pub compensates: bool,
    /// Whether that runs for each element that has succeeded, the last one first, also if others have not.
    #[serde(default, skip_serializing_if = "no")]
    pub compensates_each: bool,
    /// Whether a condition or outputs are evaluated once its tasks have succeeded.
    #[serde(default, skip_serializing_if = "no")]
    pub evaluates_end: bool,
    /// Whether other steps need it.
    #[serde(default, skip_serializing_if = "no")]
    pub has_dependents: bool,
    /// Whether it needs other steps, whose results its tasks are given.
    #[serde(default, skip_serializing_if = "no")]
    pub follows: bool,
    /// Until its first round the largest possible number, if it is an expression.
    pub max_rounds: u32,
    /// Rounds of which the last one may succeed after failed ones: zero means one. Not for steps with several rounds of another reason.
    #[serde(default, skip_serializing_if = "zero")]
    pub max_attempts: u32,
    pub state: StepState,
    /// Why it failed, was skipped or cancelled, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Steps that it needs and that have not ended.
    #[serde(default, skip_serializing_if = "zero")]
    pub needs: u32,
    /// Whether a step that it needs has not succeeded, or an expression of it has failed while tasks of it run.
    #[serde(default, skip_serializing_if = "no")]
    pub doomed: bool,
    /// Whether it was skipped by its own condition: steps that need it run.
    #[serde(default, skip_serializing_if = "no")]
    pub by_condition: bool,
    /// Whether it creates no further tasks, since the workflow stopped.
    #[serde(default, skip_serializing_if = "no")]
    pub halted: bool,
    /// Current or last round; 0 before the first.
    #[serde(default)]
    pub round: u32,
    #[serde(default)]
    pub total: u32,
    #[serde(default)]
    pub created: u32,
    #[serde(default)]
    pub succeeded: u32,
    /// Those that have not succeeded; `cancelled` counts those of them that were cancelled.
    #[serde(default)]
    pub failed: u32,
    #[serde(default, skip_serializing_if = "zero")]
    pub cancelled: u32,
    /// Tasks of the round that may exist at the same time; zero means no limit.
    #[serde(default, skip_serializing_if = "zero")]
    pub parallel: u32,
    #[serde(default, skip_serializing_if = "none")]
    pub ready_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "none")]
    pub ended_at: Option<Timestamp>,
    /// Deadline of an approval or a wait.
    #[serde(default, skip_serializing_if = "none")]
    pub due: Option<Timestamp>,
    /// When it began to wait for a person, a time or a signal.
    #[serde(default, skip_serializing_if = "none")]
    pub waits_since: Option<Timestamp>,
    /// A deadline that has passed during a pause, until that ends.
    #[serde(default, skip_serializing_if = "none")]
    pub due_after_pause: Option<Timestamp>,
    /// Time of pauses of the workflow, and in which Rota was away, by which the deadline has moved; pauses from the begin of the
    /// workflow on.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub paused_for: Duration,
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub away: Duration,
    /// Question of an approval. Earlier versions have stored it under this name.
    #[serde(default, rename = "prompt", skip_serializing_if = "String::is_empty")]
    pub question: String,
    /// Version of a template of which the workflows of the round are made, if they are.
    #[serde(default, skip_serializing_if = "none")]
    pub template: Option<Box<TemplateRef>>,
    /// Whether its signal has arrived.
    #[serde(default, skip_serializing_if = "no")]
    pub signalled: bool,
    /// Whether there is a row of its outputs.
    #[serde(default, skip_serializing_if = "no")]
    pub has_output: bool,
    /// State of its compensation, once it has begun.
    #[serde(default, skip_serializing_if = "none")]
    pub compensation: Option<StepState>,
    /// Elements whose compensation has not ended, and the one whose compensation was created last.
    #[serde(default, skip_serializing_if = "zero")]
    pub uncompensated: u32,
    #[serde(default, skip_serializing_if = "none")]
    pub compensated_item: Option<u32>,
    /// Number of times that its compensation has failed, and whether no task could be created when it last did.
    #[serde(default, skip_serializing_if = "zero")]
    pub compensation_failures: u32,
    #[serde(default, skip_serializing_if = "no")]
    pub compensation_refused: bool,
    /// How a person has resolved the last failure that was resolved, and whether that left any effects.
    #[serde(default, skip_serializing_if = "none")]
    pub resolved: Option<Box<Resolved>>,
    #[serde(default, skip_serializing_if = "no")]
    pub effects_left: bool,
    /// The step below it in the stack of completed steps.
    #[serde(default, skip_serializing_if = "none")]
    pub previous: Option<u32>,
    #[serde(default, skip_serializing_if = "none")]
    pub last_task: Option<TaskId>,
    /// Whether it need not run if it ran with the same inputs in the workflow of which this one is a rerun.
    #[serde(default, skip_serializing_if = "no")]
    pub may_reuse: bool,
    /// Digest of what its first round was started with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inputs: String,
    /// Whether it did not run: its results were copied.
    #[serde(default, skip_serializing_if = "no")]
    pub reused: bool,
    /// Its concurrency group, with its place there.
    #[serde(default, skip_serializing_if = "none")]
    pub group: Option<Box<Group>>,
    /// Whether a new member of its group has taken its place.
    #[serde(default, skip_serializing_if = "no")]
    pub replaced: bool,
}

impl Step {
    /// Returns a record for a new workflow.
    pub fn new(name: String, kind: Kind) -> Self {
        Self {
            workflow: WorkflowKey::default(),
            index: 0,
            name,
            kind,
            finally: false,
            stops: false,
            compensates: false,
            compensates_each: false,
            evaluates_end: false,
            has_dependents: false,
            follows: false,
            max_rounds: 1,
            max_attempts: 0,
            state: StepState::Waiting,
            message: String::new(),
            needs: 0,
            doomed: false,
            by_condition: false,
            halted: false,
            round: 0,
            total: 0,
            created: 0,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            parallel: 0,
            ready_at: None,
            ended_at: None,
            due: None,
            waits_since: None,
            due_after_pause: None,
            paused_for: Duration::ZERO,
            away: Duration::ZERO,
            question: String::new(),
            template: None,
            signalled: false,
            has_output: false,
            compensation: None,
            uncompensated: 0,
            compensated_item: None,
            compensation_failures: 0,
            compensation_refused: false,
            resolved: None,
            effects_left: false,
            previous: None,
            last_task: None,
            may_reuse: false,
            inputs: String::new(),
            reused: false,
            group: None,
            replaced: false,
        }
    }

    /// Tasks of the round that have not ended.
    pub fn open(&self) -> u32 {
        self.created.saturating_sub(self.succeeded + self.failed)
    }

    /// Number of tasks that may be created now.
    pub fn wanted(&self) -> u32 {
        if self.state != StepState::Running || !self.kind.is_created() || self.halted {
            return 0;
        }
        let left = self.total - self.created;
        if self.parallel == 0 { left } else { left.min(self.parallel.saturating_sub(self.open())) }
    }

    /// Whether a person decides it.
    pub fn is_approval(&self) -> bool {
        matches!(self.kind, Kind::Approval { .. })
    }

    /// Whether it waits for the decision of a person.
    pub fn awaits_decision(&self) -> bool {
        self.is_approval() && self.state == StepState::Running
    }

    /// Whether it continues only by a command of the driver.
    pub fn needs_driver(&self) -> bool {
        self.state == StepState::Ready && !self.waits_for_group()
            || self.state == StepState::Ending
            || self.wanted() > 0
            || self.compensation == Some(StepState::Ready)
    }

    /// Whether steps that need it run. `continues` is set if their need lets them run after its failure, too.
    pub fn satisfies(&self, continues: bool) -> bool {
        self.state == StepState::Succeeded || self.by_condition || continues
    }
}
