//! Commands, rows and reads of workflows.

use std::sync::Arc;

use bytes::Bytes;
use rota_core::task::Task;
use rota_core::workflow::{self, Start, Step, StepCommand, StepState, Workflow};
use rota_core::{Namespace, Timestamp, WorkflowId, WorkflowKey};

use crate::removal::{Removal, RemovalPage};
use crate::workflow_filter::WorkflowFilter;
use crate::workflow_new::{AddStep, CreateWorkflow};
use crate::{Command, Create, GroupKey, GroupMember, NameKey, StepRow, TaskRow, WorkflowRow};

/// A workflow's id in its namespace.
pub type WorkflowScopedId = (Namespace, WorkflowId);
/// A step: its workflow and its index.
pub type StepKey = (WorkflowKey, u32);
/// Index of the row that has the outputs of the workflow itself.
pub const WORKFLOW_OUTPUT: u32 = u32::MAX;

/// Returns the index of the row that has the results of a step with tasks that did not run.
pub fn reused_results(step: u32) -> u32 {
    step | 1 << 30
}

/// Returns the index of the row that has a part of the items of a step's fan-out.
pub fn step_items(step: u32, part: u32) -> u32 {
    step | part << 16 | 1 << 29
}

/// Command on a workflow or a step.
#[derive(Debug, Clone)]
pub enum WorkflowCommand {
    Create(Box<CreateWorkflow>),
    Apply {
        namespace: Namespace,
        id: WorkflowId,
        command: workflow::Command,
    },
    /// A decision or a signal, with what becomes the result of the step.
    Step {
        namespace: Namespace,
        id: WorkflowId,
        step: u32,
        command: StepCommand,
        output: Option<Bytes>,
    },
    AddStep(Box<AddStep>),
    /// What the driver has evaluated.
    Drive {
        workflow: WorkflowKey,
        step: u32,
        action: Box<Action>,
    },
    /// The driver has evaluated the outputs of a workflow, or why they cannot be.
    Conclude {
        workflow: WorkflowKey,
        outputs: Result<Bytes, String>,
    },
}

/// Round of a step that starts, with its first tasks or workflows.
#[derive(Debug, Clone, Default)]
pub struct NewRound {
    pub start: Start,
    /// The list of a fan-out in parts, for [`step_items`], unless all of its tasks are created now and no compensation reads it.
    pub items: Vec<Bytes>,
    pub tasks: Vec<Create>,
    pub nested: Vec<CreateWorkflow>,
}

/// Result of the driver's work on a step.
#[derive(Debug, Clone)]
pub enum Action {
    Skip,
    Start(NewRound),
    /// Ends a step with the results of an earlier run: a list of them for a step with tasks, its output for others; and the lists of
    /// the files of its tasks, by item, as far as they have left some.
    Reuse {
        round: u32,
        total: u32,
        inputs: String,
        results: Option<Bytes>,
        lists: Vec<(u32, Bytes)>,
    },
    /// Creates further tasks or workflows of a round, of which `created` exist.
    More {
        round: u32,
        created: u32,
        tasks: Vec<Create>,
        nested: Vec<CreateWorkflow>,
    },
    Finish {
        round: u32,
        again: bool,
        outputs: Option<Bytes>,
    },
    /// For the state in which the step was evaluated.
    Fail {
        round: u32,
        state: StepState,
        created: u32,
        message: String,
    },
    Compensate(Box<Create>),
    /// After the element whose compensation was created last.
    CompensationFailed {
        after: Option<u32>,
        message: String,
    },
}

impl WorkflowCommand {
    /// Returns the bytes of the payloads that it carries.
    pub fn payload_bytes(&self) -> usize {
        let tasks = |tasks: &[Create]| tasks.iter().map(|task| task.payload.len()).sum::<usize>();
        match self {
            Self::Create(create) => create.payload_bytes(),
            Self::AddStep(add) => add.step.spec.len(),
            Self::Drive { action, .. } => match &**action {
                Action::Start(NewRound { tasks: new, items, nested, .. }) => {
                    let nested = nested.iter().map(CreateWorkflow::payload_bytes).sum::<usize>();
                    tasks(new) + items.iter().map(Bytes::len).sum::<usize>() + nested
                }
                Action::More { tasks: new, nested, .. } => {
                    tasks(new) + nested.iter().map(CreateWorkflow::payload_bytes).sum::<usize>()
                }
                Action::Reuse { results, lists, .. } => {
                    let lists = lists.iter().map(|(_, list)| list.len()).sum::<usize>();
                    results.as_ref().map_or(0, Bytes::len) + lists
                }
                Action::Finish { outputs, .. } => outputs.as_ref().map_or(0, Bytes::len),
                Action::Compensate(create) => create.payload.len(),
                _ => 0,
            },
            Self::Step { output, .. } => output.as_ref().map_or(0, Bytes::len),
            Self::Conclude { outputs, .. } => outputs.as_ref().map_or(0, Bytes::len),
            Self::Apply { .. } => 0,
        }
    }

    /// Returns the workflows that it creates as steps of another.
    pub fn nested(&self) -> &[CreateWorkflow] {
        match self {
            Self::Drive { action, .. } => match &**action {
                Action::Start(NewRound { nested, .. }) | Action::More { nested, .. } => nested,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// Returns the tasks that it creates.
    pub fn tasks(&self) -> &[Create] {
        match self {
            Self::Drive { action, .. } => match &**action {
                Action::Start(NewRound { tasks, .. }) | Action::More { tasks, .. } => tasks,
                Action::Compensate(create) => std::slice::from_ref(create),
                _ => &[],
            },
            _ => &[],
        }
    }
}

impl From<WorkflowCommand> for Command {
    fn from(command: WorkflowCommand) -> Self {
        Self::Workflow(Box::new(command))
    }
}

/// What a load reads of workflows. Keys without a row are absent from the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkflowLoad {
    pub keys: Vec<WorkflowKey>,
    pub ids: Vec<WorkflowScopedId>,
    pub names: Vec<NameKey>,
    pub steps: Vec<StepKey>,
    pub dependents: Vec<StepPage>,
    pub held: Vec<StepPage>,
    pub active: Vec<StepPage>,
    pub tasks: Vec<StepTasksPage>,
    /// Rows of workflows that are removed.
    pub removals: Vec<RemovalPage>,
    /// Groups: all members that hold them, then the first [`crate::GROUP_WINDOW`] that wait.
    pub groups: Vec<GroupKey>,
    /// Members of groups that are a workflow or its steps, and their largest number.
    pub memberships: Option<(WorkflowKey, usize)>,
    /// Workflows and steps with a deadline up to this time, and their largest number.
    pub due: Option<(Timestamp, usize)>,
    /// Workflows that ended before this time, and their largest number.
    pub expired: Option<(Timestamp, usize)>,
}

/// Page of steps of a workflow, lowest index first: those that need `step`, or all in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPage {
    pub workflow: WorkflowKey,
    pub step: u32,
    /// Inclusive lower bound of the index.
    pub from: u32,
    pub limit: usize,
}

/// Place of a task in its workflow: step, round, item.
pub type TaskPlace = (u32, u32, u32);

/// Page of the tasks of a workflow, by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTasksPage {
    pub workflow: WorkflowKey,
    /// Exclusive lower bound; `None` for the first page.
    pub after: Option<TaskPlace>,
    /// Whether tasks that have ended are left out.
    pub open: bool,
    pub limit: usize,
}

/// Result of a load. Pages are in the order of the request, one for each.
#[derive(Debug, Clone, Default)]
pub struct WorkflowLoaded {
    pub workflows: Vec<WorkflowRow>,
    pub ids: Vec<(WorkflowScopedId, WorkflowRow)>,
    pub names: Vec<(NameKey, WorkflowKey)>,
    pub steps: Vec<StepRow>,
    /// Steps that need another one, with whether they run although that has not succeeded.
    pub dependents: Vec<Vec<(StepRow, bool)>>,
    pub held: Vec<Vec<StepRow>>,
    pub active: Vec<Vec<StepRow>>,
    pub tasks: Vec<Vec<TaskRow>>,
    pub removals: Vec<Removal>,
    pub groups: Vec<Vec<GroupMember>>,
    pub memberships: Vec<(GroupKey, StepKey)>,
    pub due_workflows: Vec<WorkflowKey>,
    pub due_steps: Vec<StepKey>,
    pub expired: Vec<WorkflowKey>,
}

/// What one write changes of workflows.
#[derive(Debug, Clone, Default)]
pub struct WorkflowChanges {
    /// New workflows, with their spec and idempotency key.
    pub inserted: Vec<(Arc<Workflow>, Bytes, Option<String>)>,
    pub updated: Vec<Arc<Workflow>>,
    /// New steps, with their spec.
    pub new_steps: Vec<(Arc<Step>, Bytes)>,
    pub steps: Vec<Arc<Step>>,
    /// Needs: the step that is needed, then the one that needs it, and whether that runs although the first has not succeeded.
    pub edges: Vec<(StepKey, u32, bool)>,
    pub outputs: Vec<(StepKey, Bytes)>,
    /// Members of groups; `None` for those that have left.
    pub members: Vec<(GroupKey, StepKey, Option<GroupMember>)>,
    /// Workflows to remove, with the steps that are left. Their tasks, and most rows of their steps, were removed before.
    pub removed: Vec<WorkflowKey>,
    /// Rows of steps to remove.
    pub removed_rows: Vec<(WorkflowKey, Removal)>,
    /// Tasks that outlive their workflow, since other tasks need them.
    pub detached: Vec<rota_core::TaskKey>,
    /// Workflows whose record cannot be decoded: kept, but neither due nor expired before the next start.
    pub undecodable: Vec<WorkflowKey>,
    /// Steps whose record cannot be decoded.
    pub undecodable_steps: Vec<StepKey>,
}

impl WorkflowChanges {
    /// Whether there is anything to write.
    pub fn has_rows(&self) -> bool {
        let counts = [
            self.inserted.len(),
            self.updated.len(),
            self.new_steps.len(),
            self.steps.len(),
            self.edges.len(),
            self.outputs.len(),
            self.members.len(),
            self.removed.len(),
            self.removed_rows.len(),
            self.detached.len(),
            self.undecodable.len(),
            self.undecodable_steps.len(),
        ];
        counts.into_iter().any(|count| count > 0)
    }
}

#[derive(Debug, Clone)]
pub enum WorkflowQuery {
    Id(WorkflowScopedId),
    Key(WorkflowKey),
    /// The id of a workflow, also of one whose record cannot be decoded.
    IdOf(WorkflowKey),
    /// The newest workflow of an alias.
    Alias(NameKey),
    List(WorkflowFilter),
    /// The spec without its steps, as the body with number 0.
    Spec(WorkflowKey),
    /// Steps from an index on.
    Steps {
        workflow: WorkflowKey,
        from: u32,
        limit: usize,
    },
    StepsAt(WorkflowKey, Vec<u32>),
    /// A workflow with some steps, and all specs: those of the steps by their numbers, and that of the workflow with
    /// [`crate::WORKFLOW_MEMBER`] as number, last.
    Work(WorkflowKey, Vec<u32>),
    /// Specs of steps from an index on.
    StepSpecs {
        workflow: WorkflowKey,
        from: u32,
        limit: usize,
    },
    Outputs(WorkflowKey, Vec<u32>),
    /// Workflows with these ids that can be decoded, in this order, with the outputs that they have left.
    Outcomes(Namespace, Vec<WorkflowId>),
    /// Tasks of a round of a step with their results, by item, from one on: up to a number of them, and of bytes of results.
    Tasks {
        workflow: WorkflowKey,
        step: u32,
        round: u32,
        from: u32,
        limit: usize,
        bytes: usize,
    },
    /// Steps that need the driver, after this one.
    Driven {
        after: Option<StepKey>,
        limit: usize,
    },
    /// Steps that have started and not ended, after this one.
    Active {
        after: Option<StepKey>,
        limit: usize,
    },
    /// Workflows that have ended after a time, or at that time with a later key: those that ended first come first.
    Ended {
        after: (Timestamp, WorkflowKey),
        limit: usize,
    },
    /// Workflows whose outputs are to be evaluated.
    Ending {
        after: WorkflowKey,
        limit: usize,
    },
    /// Members of a group, as a load reads them.
    Group(GroupKey),
    /// Number of workflows that have not ended.
    Unended,
}

/// Result of a read of workflows.
#[derive(Debug, Clone, Default)]
pub struct WorkflowRows {
    pub workflows: Vec<Workflow>,
    pub ids: Vec<WorkflowId>,
    /// Token of the next page of a list, if there may be more.
    pub next: Option<WorkflowKey>,
    pub steps: Vec<Step>,
    pub bodies: Vec<(u32, Bytes)>,
    pub outcomes: Vec<(Workflow, Option<Bytes>)>,
    pub tasks: Vec<(Task, Option<Bytes>)>,
    pub members: Vec<GroupMember>,
    pub count: u64,
}

/// Returns the time by which an ended workflow is found for its removal. A deleted one is being removed already, and one that is a
/// step of another is removed with that.
pub fn stored_end(workflow: &Workflow) -> Option<Timestamp> {
    // The one around a step may have been removed meanwhile, if the step was compensated after its end.
    let is_alone = workflow.parent.is_none() || workflow.resolved > 0;
    workflow.ended_at.filter(|_| !workflow.deleted && is_alone)
}

/// Returns the end by which a task is found for its removal. A task of a workflow is removed with that.
pub fn stored_task_end(task: &Task) -> Option<Timestamp> {
    task.ended_at.filter(|_| task.step.is_none())
}

/// Bits of the number of an item, or of a step, of which there are at most 10,000 each.
pub(crate) const ITEM_BITS: u32 = 14;

/// Returns the place of a task in its workflow.
pub fn place_of(task: &Task) -> Option<(WorkflowKey, TaskPlace)> {
    let step = task.step.as_ref()?;
    // A compensation that runs again has a place of its own, behind the elements: pages of tasks begin after a place.
    let again = step.after_failures.min(u32::MAX >> ITEM_BITS) << ITEM_BITS;
    Some((step.workflow, (step.step, step.round, step.item | again)))
}
