//! Commands on workflows and steps, and what follows from them.

use std::time::Duration;

use super::{Kind, NestedCommand, Resolved, State, StepState, TemplateRef};
use crate::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// No further step, round or task starts. With `suspend`, tasks that have not started are suspended.
    Pause {
        suspend: bool,
    },
    /// The pause is over. `away` is the part of it in which Rota was away, which no deadline counts anyway; the store sets it.
    Resume {
        away: Duration,
    },
    /// It has a place in its group.
    Admit,
    /// Running steps end, and finally-steps run.
    Cancel {
        reason: String,
    },
    /// As `Cancel`, and finally-steps that run end, too; no further one starts.
    CancelFinally {
        reason: String,
    },
    /// Its deadline may have passed: one after `by` is not judged, which may precede the time of the command. `away` is how long Rota
    /// was away since the time of the workflow began; the store sets it.
    Tick {
        by: Timestamp,
        away: Duration,
    },
    /// A task of it, or of a workflow below it, has cost so much more.
    Spend {
        micro_usd: i64,
    },
    /// The driver has evaluated its outputs, or why they cannot be.
    Conclude(Result<(), String>),
    Delete,
}

impl Command {
    /// Of a caller, who does not know how long Rota was away.
    pub const RESUME: Self = Self::Resume { away: Duration::ZERO };
    /// By the time of the command.
    pub const TICK: Self = Self::Tick { by: Timestamp::MAX, away: Duration::ZERO };
}

/// Start of a round, as the driver has evaluated it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    pub round: u32,
    /// Number of its tasks or workflows.
    pub total: u32,
    /// Those of them that may exist at the same time; zero means no limit.
    pub parallel: u32,
    /// The largest number of rounds, if it is an expression.
    pub max_rounds: Option<u32>,
    /// The kind with the times for which it waits, if they are expressions.
    pub kind: Option<Kind>,
    /// Question of an approval, for the person who decides it.
    pub question: String,
    /// Template of the workflows of the round.
    pub template: Option<Box<TemplateRef>>,
    /// Digest of what the first round is started with.
    pub inputs: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepCommand {
    /// A step that it needs has ended: whether it satisfies the need, and whether its results are those of an earlier run.
    NeedEnded {
        satisfied: bool,
        reused: bool,
    },
    /// The workflow may have room for it.
    Release,
    /// It has a place in its group.
    Admit,
    /// A new member of its group takes its place.
    Replace,
    /// Its condition does not hold.
    Skip,
    /// The driver has evaluated what the round needs.
    Start(Start),
    /// The driver has found that the step has succeeded with the same inputs, in the workflow of which this one is a rerun: in
    /// which round, with how many tasks, and with lists of files of so many bytes.
    Reuse {
        round: u32,
        total: u32,
        inputs: String,
        lists: u32,
    },
    /// The next tasks of the round were created.
    Created {
        count: u32,
    },
    /// An expression cannot be evaluated, or a task cannot be created: for the step in this state, with so many tasks created.
    Fail {
        round: u32,
        state: StepState,
        created: u32,
        message: String,
    },
    /// A task of it has ended.
    TaskEnded {
        round: u32,
        end: TaskEnd,
    },
    /// The driver has evaluated its end: outputs are stored, or another round follows.
    Finish {
        round: u32,
        again: bool,
    },
    Decide {
        approves: bool,
        message: String,
    },
    Signal,
    /// Its deadline may have passed: one after `by` is not judged, which may precede the time of the command. `away` is how long Rota
    /// was away since it began to wait.
    Tick {
        by: Timestamp,
        away: Duration,
    },
    /// The workflow was resumed: deadlines move by the time of the pause.
    Resume,
    Halt,
    /// Its effects are to be reversed.
    Compensate,
    /// The task that compensates it, or this element of it, was created.
    CompensationCreated {
        item: u32,
    },
    /// The task that compensates it cannot be created, after that of this element.
    CompensationFailed {
        after: Option<u32>,
        message: String,
    },
    /// A person has resolved its failed compensation: the failure with a number, or the last one for 0.
    Resolve(Resolved),
}

impl StepCommand {
    /// By the time of the command.
    pub const TICK: Self = Self::Tick { by: Timestamp::MAX, away: Duration::ZERO };
}

/// How a task of a step has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnd {
    Succeeded,
    Failed,
    Cancelled,
}

/// Consequence for other steps or tasks of the workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The step has ended: steps that need it take notice.
    Ended {
        step: u32,
    },
    Release,
    /// Started steps take notice that the workflow stops.
    Halt,
    /// Tasks that have not ended are cancelled, or suspended, or resumed.
    CancelTasks,
    CancelStep {
        step: u32,
    },
    SuspendTasks,
    ResumeTasks,
    /// Workflows that are steps of this one, or its only step that is meant, receive a command.
    Nested {
        command: NestedCommand,
        only: Option<u32>,
    },
    /// The workflow has ended: the one of which it is a step takes notice.
    EndedAsStep,
    /// An approval has ended without a decision: its result is that of its default decision, without a comment.
    DecidedByDefault {
        step: u32,
        approves: bool,
    },
    /// Started steps take notice that the workflow was resumed.
    ResumeSteps,
    Compensate {
        step: u32,
    },
    /// The workflow, or a step, waits for a place in its group.
    Join {
        step: Option<u32>,
    },
    Leave {
        step: Option<u32>,
    },
    Remove,
}

/// What a command has changed besides the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub follow: Vec<Follow>,
}

/// Why a command has changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the workflow has already ended in state {}", .0.name())]
    Final(State),
    #[error("the workflow has not ended")]
    Unended,
    #[error("not possible while the step is {}", .0.name())]
    State(StepState),
    #[error("not possible while the workflow is {}", .0.name())]
    Phase(State),
    /// Nothing starts until the workflow is resumed.
    #[error("the workflow is paused")]
    Paused,
    /// Evaluated for an earlier state of the step.
    #[error("outdated")]
    Outdated,
    #[error("the step waits for no decision")]
    NoApproval,
    #[error("the step waits for no signal")]
    NoSignal,
    #[error("the step has no failed compensation that waits for a person")]
    NoFailedCompensation,
}
