//! Records of a workflow and of its steps, with their state machine. It counts needs, rounds and items, applies failure
//! policies, and orders compensation. Knows no expressions: what must be evaluated is asked of a driver
//! ([`Step::needs_driver`]), whose answers are [`StepCommand`]s.
//!
//! A command changes one workflow and at most one of its steps. What follows for other steps is a list of [`Follow`]s: the
//! store executes them, each in work proportional to the edges of one step, over as many commits as it takes.

mod apply;
mod command;
mod compensation;
mod deadlines;
mod extend;
mod group;
mod nested;
mod phases;
mod state;
mod step;
mod step_ref;
mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use command::{Change, Command, Follow, Rejected, Start, StepCommand, TaskEnd};
pub use compensation::{Resolution, Resolved};
pub use group::{Group, MAX_GROUP_LIMIT, Place};
pub use nested::{
    MAX_DEPTH, MAX_NESTED, MAX_NESTED_ITEMS, MAX_NESTING_STEPS, NestedCommand, Parent, nested_places,
};
pub use state::{State, StepState};
pub use step::{Kind, Step};
pub use step_ref::StepRef;
pub use template::TemplateRef;

use crate::task::Trace;
use crate::{Namespace, Timestamp, WorkflowId, WorkflowKey};

/// Largest number of steps of a workflow.
pub const MAX_STEPS: usize = 10_000;
/// Largest number of items of a fan-out.
pub const MAX_ITEMS: u32 = 10_000;
/// Largest number of rounds of a step.
pub const MAX_ROUNDS: u32 = 1000;
/// Tasks that one commit creates for a step.
pub const MAX_TASKS_PER_COMMIT: usize = 256;
/// Bytes from which on no step takes over lists of files of an earlier run: those of a workflow are removed in one commit.
pub const MAX_REUSED_LISTS: u32 = 8 << 20;
/// Longest message of a record, in bytes.
const MAX_MESSAGE: usize = 1024;
/// Round of the tasks that compensate a step. Rounds of its own tasks begin with 1.
pub const COMPENSATION: u32 = 0;

fn none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

fn no(value: &bool) -> bool {
    !value
}

fn zero(value: &u32) -> bool {
    *value == 0
}

fn free(micro_usd: &i64) -> bool {
    *micro_usd == 0
}

/// Why a workflow does not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Failed,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Key under which the store has it; zero before its creation.
    #[serde(skip)]
    pub key: WorkflowKey,
    pub id: WorkflowId,
    pub namespace: Namespace,
    /// Short name chosen by the caller; names the newest workflow that has it.
    #[serde(default, skip_serializing_if = "none")]
    pub alias: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "none")]
    pub rerun_of: Option<WorkflowId>,
    /// The newest one that is a rerun of this one.
    #[serde(default, skip_serializing_if = "none")]
    pub rerun: Option<WorkflowId>,
    /// Template of which it was made, with its version: `name@version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// The step that it is of another workflow.
    #[serde(default, skip_serializing_if = "none")]
    pub parent: Option<Box<Parent>>,
    /// Indexes of its steps that are workflows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nests: Vec<u32>,
    /// Workflows that were created below it, at any depth, if none is around it.
    #[serde(default, skip_serializing_if = "zero")]
    pub nested: u32,
    /// Parent of the traces of its tasks.
    pub trace: Trace,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "none")]
    pub ended_at: Option<Timestamp>,
    /// Time from its creation, or its place in its group, after which it fails, without `paused_for` and `away`.
    #[serde(default, skip_serializing_if = "none")]
    pub timeout: Option<Duration>,
    /// Time after its end after which it is removed; `None` leaves that to the retention.
    #[serde(default, skip_serializing_if = "none")]
    pub ttl: Option<Duration>,
    /// Cost of all tasks, with those of workflows below, at which it fails, in millionths of a US dollar.
    #[serde(default, skip_serializing_if = "none")]
    pub budget_micro_usd: Option<i64>,
    /// Whether the cost is counted: it has a budget, or a workflow around it has.
    #[serde(default, skip_serializing_if = "no")]
    pub counts_cost: bool,
    #[serde(default, skip_serializing_if = "free")]
    pub cost_micro_usd: i64,
    /// Steps that may run at the same time; zero means no limit.
    #[serde(default, skip_serializing_if = "zero")]
    pub max_parallel: u32,
    /// Its concurrency group, and when it got its place there.
    #[serde(default, skip_serializing_if = "none")]
    pub group: Option<Box<Group>>,
    #[serde(default, skip_serializing_if = "none")]
    pub admitted_at: Option<Timestamp>,
    /// Whether completed steps are compensated if it does not succeed.
    #[serde(default, skip_serializing_if = "no")]
    pub compensates: bool,
    /// Whether its outputs are evaluated once it has succeeded.
    #[serde(default, skip_serializing_if = "no")]
    pub has_outputs: bool,
    pub state: State,
    #[serde(default, skip_serializing_if = "no")]
    pub paused: bool,
    /// Whether no pause has suspended its tasks: the end of one resumes none. Unset in records of earlier versions.
    #[serde(default, skip_serializing_if = "no")]
    pub never_suspended: bool,
    /// Begin of the pause. Unset if it is not paused, or was by an earlier version.
    #[serde(default, skip_serializing_if = "none")]
    pub paused_at: Option<Timestamp>,
    /// Time of its pauses that have ended, without that in which Rota was away.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub paused_for: Duration,
    /// How long Rota was away since the time of the workflow began, as far as a deadline was judged by it.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub away: Duration,
    /// Whether its cancellation was requested.
    #[serde(default, skip_serializing_if = "no")]
    pub cancelled: bool,
    /// Whether what runs was cancelled when it stopped, or since: there is nothing left that its timeout would end.
    #[serde(default, skip_serializing_if = "no")]
    pub cut_off: bool,
    #[serde(default, skip_serializing_if = "none")]
    pub outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "no")]
    pub compensation_failed: bool,
    /// Failed compensations that a person has resolved: after each it has continued, and ended again.
    #[serde(default, skip_serializing_if = "zero")]
    pub resolved: u32,
    /// What has failed, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The step that failed first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed_step: String,
    /// Steps without finally-steps, then finally-steps, then those that were added while it ran: in the order of their indexes.
    pub main: u32,
    pub finals: u32,
    #[serde(default, skip_serializing_if = "zero")]
    pub added: u32,
    /// Those of them that have not ended.
    pub main_open: u32,
    pub finals_open: u32,
    /// Steps of the current phase that are READY, RUNNING or ENDING.
    #[serde(default)]
    pub active: u32,
    /// Main steps, or finally-steps, that are HELD.
    #[serde(default)]
    pub main_held: u32,
    #[serde(default)]
    pub finals_held: u32,
    #[serde(default)]
    pub succeeded: u32,
    #[serde(default)]
    pub failed: u32,
    #[serde(default)]
    pub skipped: u32,
    /// Step that has ended last, of those with effects whose compensation was not executed: the top of a stack, which
    /// [`Step::previous`] links.
    #[serde(default, skip_serializing_if = "none")]
    pub last_completed: Option<u32>,
    /// Whether its finally-steps were cancelled, too: no further one starts.
    #[serde(default, skip_serializing_if = "no")]
    pub finals_halted: bool,
    /// Bytes of the lists of files that its steps have taken over from an earlier run.
    #[serde(default, skip_serializing_if = "zero")]
    pub reused_lists: u32,
    /// Whether it was deleted: its rows are being removed.
    #[serde(default, skip_serializing_if = "no")]
    pub deleted: bool,
}

impl Workflow {
    /// Returns a record for [`Workflow::begin`].
    pub fn new(id: WorkflowId, namespace: Namespace) -> Self {
        Self {
            key: WorkflowKey::default(),
            id,
            namespace,
            alias: None,
            title: String::new(),
            owner: String::new(),
            labels: BTreeMap::new(),
            rerun_of: None,
            rerun: None,
            template: String::new(),
            parent: None,
            nests: Vec::new(),
            nested: 0,
            trace: Trace::default(),
            created_at: Timestamp::default(),
            ended_at: None,
            timeout: None,
            ttl: None,
            budget_micro_usd: None,
            counts_cost: false,
            cost_micro_usd: 0,
            max_parallel: 0,
            group: None,
            admitted_at: None,
            compensates: false,
            has_outputs: false,
            state: State::Running,
            paused: false,
            never_suspended: true,
            paused_at: None,
            paused_for: Duration::ZERO,
            away: Duration::ZERO,
            cancelled: false,
            cut_off: false,
            outcome: None,
            compensation_failed: false,
            resolved: 0,
            message: String::new(),
            failed_step: String::new(),
            main: 0,
            finals: 0,
            added: 0,
            main_open: 0,
            finals_open: 0,
            active: 0,
            main_held: 0,
            finals_held: 0,
            succeeded: 0,
            failed: 0,
            skipped: 0,
            last_completed: None,
            finals_halted: false,
            reused_lists: 0,
            deleted: false,
        }
    }

    /// Returns the time at which what has not ended is cancelled, which is none while it is paused, and the time at which it is removed
    /// once it has ended.
    pub fn due(&self) -> Option<Timestamp> {
        if self.state.is_final() {
            return self.ended_at.zip(self.ttl).filter(|_| !self.deleted).map(|(ended, ttl)| ended + ttl);
        }
        let is_open = matches!(self.state, State::Running | State::Stopping) && !self.cut_off;
        let runs = is_open && self.paused_at.is_none() && !self.lacks_group();
        let uncounted = self.paused_for.saturating_add(self.away);
        self.timeout.filter(|_| runs).map(|timeout| self.began_at() + timeout.saturating_add(uncounted))
    }

    /// Returns when its time began.
    pub fn began_at(&self) -> Timestamp {
        self.admitted_at.unwrap_or(self.created_at)
    }

    /// Whether its tasks have cost as much as they may.
    pub fn is_over_budget(&self) -> bool {
        self.budget_micro_usd.is_some_and(|budget| self.cost_micro_usd >= budget)
    }

    /// Whether nothing starts until it is resumed. Finally-steps and compensations cannot be paused.
    pub fn is_paused(&self) -> bool {
        self.paused && self.state == State::Running
    }

    /// Whether it asks for a person: it has failed for good, and was not run again. One that is a step is left to that around it.
    pub fn is_dead_letter(&self) -> bool {
        let failed = matches!(self.state, State::Failed | State::CompensationFailed);
        failed && self.rerun.is_none() && self.parent.is_none()
    }

    /// Whether it was made of a template, by its name or by `name@version`.
    pub fn is_of_template(&self, template: &str) -> bool {
        let (name, _) = self.template.rsplit_once('@').unwrap_or_default();
        self.template == template || (!name.is_empty() && name == template)
    }

    /// Whether a step of the current phase may start.
    pub fn has_room(&self) -> bool {
        !self.is_paused()
            && !self.lacks_group()
            && (self.max_parallel == 0 || self.active < self.max_parallel)
    }

    /// Number of steps of the current phase that are held and may start.
    pub fn releasable(&self) -> u32 {
        let held = match self.state {
            State::Running => self.main_held,
            State::Finalizing if !self.finals_halted => self.finals_held,
            _ => 0,
        };
        let room = match self.max_parallel {
            _ if self.is_paused() || self.lacks_group() => 0,
            0 => held,
            max => max.saturating_sub(self.active),
        };
        held.min(room)
    }

    /// Returns the state of a step as callers see it: one that never started, since the workflow stopped, was skipped.
    pub fn state_of(&self, step: &Step) -> StepState {
        let is_over = self.state.is_final() || (!step.finally && self.state != State::Running);
        match step.state {
            StepState::Waiting | StepState::Held if is_over => StepState::Skipped,
            state => state,
        }
    }
}

/// Shortens a message to what a record holds.
fn message(text: &str) -> String {
    crate::text::prefix(text, MAX_MESSAGE).to_owned()
}
