//! Plans of workflows, and the commands that they become: what a driver evaluates is chosen by the plan.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use rota_core::target::Target;
use rota_core::task::{Task, Trace};
use rota_core::workflow::{
    COMPENSATION, Command as Apply, Group, Kind, Parent, Place, Resolution, Resolved, Start, Step,
    StepCommand, StepRef, StepState, Workflow,
};
use rota_core::{Timestamp, WorkflowId};
use rota_store::memory::InMemoryStore;
use rota_store::{
    Action, AddStep, Command, Create, CreateWorkflow, Given, Need, NewRound, NewStep, Reader,
    WorkflowCommand, WorkflowQuery,
};
use uuid::Uuid;

use super::commands::{agent, id, namespace};
use super::plan::{SLOTS, TASK_SLOTS};

/// Workflows that plans name, besides those that are steps.
const WORKFLOWS: u8 = 3;
const ALL: usize = 100;

#[derive(Debug, Clone)]
pub(crate) struct PlannedStep {
    kind: u8,
    needs: Vec<u8>,
    continues: bool,
    finally: bool,
    compensates: bool,
    grouped: bool,
    rounds: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum WorkflowOp {
    Create {
        slot: u8,
        steps: Vec<PlannedStep>,
        stops: bool,
        parallel: u32,
        grouped: bool,
    },
    /// What the driver does with one of the steps that need it.
    Drive {
        which: u8,
        choice: u8,
    },
    Apply {
        slot: u8,
        choice: u8,
    },
    /// A decision or a signal, for a step of any kind.
    Answer {
        slot: u8,
        step: u8,
        choice: u8,
    },
    Add {
        slot: u8,
        step: PlannedStep,
    },
}

fn planned() -> impl Strategy<Value = PlannedStep> {
    let flags = (any::<bool>(), 0..5_u8, any::<bool>(), 0..4_u8);
    (0..10_u8, btree_set(0..4_u8, 0..3), flags, 1..3_u32).prop_map(|(kind, needs, flags, rounds)| {
        let (continues, finally, compensates, grouped) = flags;
        PlannedStep {
            kind,
            needs: needs.into_iter().collect(),
            continues,
            finally: finally == 0,
            compensates,
            grouped: grouped == 0,
            rounds,
        }
    })
}

pub(super) fn op() -> impl Strategy<Value = WorkflowOp> {
    let slot = || 0..WORKFLOWS;
    prop_oneof![
        3 => (slot(), vec(planned(), 1..6), any::<bool>(), 0..3_u32, any::<bool>()).prop_map(
            |(slot, steps, stops, parallel, grouped)| WorkflowOp::Create { slot, steps, stops, parallel, grouped }
        ),
        10 => (any::<u8>(), any::<u8>()).prop_map(|(which, choice)| WorkflowOp::Drive { which, choice }),
        2 => (slot(), 0..12_u8).prop_map(|(slot, choice)| WorkflowOp::Apply { slot, choice }),
        1 => (slot(), 0..6_u8, any::<u8>()).prop_map(|(slot, step, choice)| WorkflowOp::Answer { slot, step, choice }),
        1 => (slot(), planned()).prop_map(|(slot, step)| WorkflowOp::Add { slot, step }),
    ]
}

/// Workflows of the in-memory store, and their steps that need the driver, before a batch.
pub(super) struct Workflows {
    known: Vec<Workflow>,
    driven: Vec<Step>,
}

fn workflow_id(slot: u8) -> WorkflowId {
    WorkflowId(Uuid::from_u128(u128::from(slot) + 1))
}

/// Reads that two stores must answer in the same way.
pub(super) fn queries(model: &InMemoryStore) -> Vec<WorkflowQuery> {
    let known = Workflows::new(model).known;
    let of_workflow = |workflow: &Workflow| {
        let key = workflow.key;
        let outputs = (0..8).collect();
        [WorkflowQuery::Steps { workflow: key, from: 0, limit: ALL }, WorkflowQuery::Outputs(key, outputs)]
    };
    let all = [WorkflowQuery::Driven { after: None, limit: ALL }];
    let ids = (0..WORKFLOWS).map(|slot| WorkflowQuery::Id((namespace(0), workflow_id(slot))));
    known.iter().flat_map(of_workflow).chain(all).chain(ids).collect()
}

impl Workflows {
    pub(super) fn new(model: &InMemoryStore) -> Self {
        let read = |query| Reader::workflows(model, &query).unwrap();
        let driven = read(WorkflowQuery::Driven { after: None, limit: ALL }).steps;
        let ids = (0..WORKFLOWS).map(|slot| WorkflowQuery::Id((namespace(0), workflow_id(slot))));
        let mut known: Vec<_> = ids.flat_map(|query| read(query).workflows).collect();
        // Those that are steps, too.
        for step in &driven {
            if known.iter().all(|one| one.key != step.workflow) {
                known.extend(read(WorkflowQuery::Key(step.workflow)).workflows);
            }
        }
        Self { known, driven }
    }

    fn of_key(&self, step: &Step) -> Option<&Workflow> {
        self.known.iter().find(|workflow| workflow.key == step.workflow)
    }
}

fn group() -> Box<Group> {
    Box::new(Group { name: "group".to_owned(), limit: 1, replaces: false, place: Place::Outside })
}

/// Returns a step, which needs only those before it, in its phase.
fn new_step(index: usize, planned: &PlannedStep, all: &[PlannedStep], stops: bool) -> NewStep {
    let second = Duration::from_secs(1);
    let kind = match planned.kind {
        0 => Kind::Approval { deadline: Some(second), approves: planned.continues },
        1 => Kind::Sleep { duration: second },
        2 => Kind::Signal { timeout: Some(second * 5) },
        3 => Kind::Workflow,
        _ => Kind::Task,
    };
    let needs = planned.needs.iter().copied().filter(|need| {
        let need = usize::from(*need);
        need < index && all.get(need).is_some_and(|needed| needed.finally == planned.finally)
    });
    let needs: Vec<_> =
        needs.map(|step| Need { step: step.into(), continues: !stops && planned.continues }).collect();
    let mut step = Step::new(format!("s{index}"), kind);
    step.needs = u32::try_from(needs.len()).unwrap();
    step.finally = planned.finally;
    step.stops = stops && !planned.finally;
    step.compensates = planned.compensates && !planned.finally;
    step.group = (planned.grouped && kind == Kind::Task).then(group);
    (step.max_rounds, step.evaluates_end) = (planned.rounds, planned.rounds > 1);
    NewStep { step, spec: Bytes::from(format!("spec {index}")), needs }
}

fn new_workflow(id: WorkflowId, planned: &[PlannedStep], stops: bool) -> CreateWorkflow {
    // Finally-steps are the last ones.
    let mut planned = planned.to_vec();
    planned.sort_by_key(|step| step.finally);
    planned[0].finally = false;
    let mut steps: Vec<_> =
        planned.iter().enumerate().map(|(index, step)| new_step(index, step, &planned, stops)).collect();
    for index in 0..steps.len() {
        let needs = |new: &NewStep| new.needs.iter().any(|need| need.step as usize == index);
        steps[index].step.has_dependents = steps.iter().any(needs);
    }
    let mut workflow = Workflow::new(id, namespace(0));
    workflow.compensates = stops;
    let spec = Bytes::from_static(b"spec");
    CreateWorkflow { spec, foreign_id: true, ..CreateWorkflow::new(workflow, steps) }
}

/// Returns nothing that could change anything.
fn nothing() -> Command {
    Command::tick(0)
}

pub(super) fn build(op: &WorkflowOp, view: &Workflows, tasks: &[Option<Task>], now: Timestamp) -> Command {
    match op {
        WorkflowOp::Create { slot, steps, stops, parallel, grouped } => {
            let mut create = new_workflow(workflow_id(*slot), steps, *stops);
            create.workflow.max_parallel = *parallel;
            create.workflow.timeout = grouped.then_some(Duration::from_secs(15));
            create.workflow.group = grouped.then(group);
            WorkflowCommand::Create(Box::new(create)).into()
        }
        WorkflowOp::Drive { which, choice } => {
            let Some(step) = view.driven.get(usize::from(*which) % view.driven.len().max(1)) else {
                return nothing();
            };
            let Some(action) = action(step, *choice, view, tasks) else { return nothing() };
            let (workflow, step) = (step.workflow, step.index);
            WorkflowCommand::Drive { workflow, step, action: Box::new(action) }.into()
        }
        WorkflowOp::Apply { slot, choice } => {
            let command = match choice {
                0..3 => Apply::Pause { suspend: *choice == 0 },
                3..8 => Apply::RESUME,
                8..10 => Apply::Cancel { reason: "so".to_owned() },
                _ => Apply::Delete,
            };
            WorkflowCommand::Apply { namespace: namespace(0), id: workflow_id(*slot), command }.into()
        }
        WorkflowOp::Answer { slot, step, choice } => {
            let command = match choice % 6 {
                0 => StepCommand::Signal,
                answer @ 1..3 => StepCommand::Decide { approves: answer == 1, message: "so".to_owned() },
                answer => {
                    let all = [Resolution::Retry, Resolution::Done, Resolution::Skip];
                    let (resolution, by) = (all[usize::from(answer) - 3], "a person".to_owned());
                    let (by_subject, note) = ("a subject".to_owned(), String::new());
                    let resolved = Resolved { failure: 0, resolution, by, by_subject, note, at: now };
                    StepCommand::Resolve(resolved)
                }
            };
            let (id, output) = (workflow_id(*slot), Some(Bytes::from(now.0.to_string())));
            let step = u32::from(*step);
            WorkflowCommand::Step { namespace: namespace(0), id, step, command, output }.into()
        }
        WorkflowOp::Add { slot, step } => {
            let known = view.known.iter().find(|workflow| workflow.id == workflow_id(*slot));
            // One that is needed must not be of `finally`.
            let main = known.map_or(0, |workflow| workflow.main);
            let total = known.map_or(0, |workflow| workflow.main + workflow.finals + workflow.added);
            let mut new =
                new_step(total as usize, &PlannedStep { finally: false, ..step.clone() }, &[], false);
            let needs = step.needs.iter().filter(|need| u32::from(**need) < main);
            new.needs = needs.map(|need| Need { step: (*need).into(), continues: step.continues }).collect();
            new.step.needs = u32::try_from(new.needs.len()).unwrap();
            let stops = new.needs.iter().map(|need| (need.step, false)).collect();
            let (namespace, id) = (namespace(0), workflow_id(*slot));
            WorkflowCommand::AddStep(Box::new(AddStep { namespace, id, total, step: new, stops })).into()
        }
    }
}

/// Returns what a driver might have found for a step.
fn action(step: &Step, choice: u8, view: &Workflows, tasks: &[Option<Task>]) -> Option<Action> {
    let of = view.of_key(step)?;
    let (round, created, state) = (step.round, step.created, step.state);
    if step.compensation == Some(StepState::Ready) {
        let create = creates(of, step, COMPENSATION, 0, 1, tasks).pop();
        let failed = || Action::CompensationFailed { after: None, message: "no".to_owned() };
        return Some(
            create
                .filter(|_| !choice.is_multiple_of(8))
                .map_or_else(failed, |create| Action::Compensate(Box::new(create))),
        );
    }
    Some(match state {
        StepState::Ready if choice.is_multiple_of(16) => Action::Skip,
        StepState::Ready if choice % 16 == 1 => {
            Action::Fail { round, state, created, message: "no value".to_owned() }
        }
        StepState::Ready if choice % 16 == 2 => {
            let (results, lists) = (Some(Bytes::from_static(b"[]")), Vec::new());
            Action::Reuse { round: 1, total: 2, inputs: "inputs".to_owned(), results, lists }
        }
        StepState::Ready => {
            let (total, parallel) = (u32::from(choice / 16) % 4, u32::from(choice) % 3);
            let started = Step { state: StepState::Running, total, parallel, created: 0, ..step.clone() };
            let (tasks, nested) = parts(of, &started, tasks);
            let items = vec![Bytes::from(vec![choice; 3])];
            let (question, inputs) = ("Why?".to_owned(), "inputs".to_owned());
            let start = Start { round, total, parallel, question, inputs, ..Start::default() };
            Action::Start(NewRound { start, items, tasks, nested })
        }
        StepState::Running => {
            let (tasks, nested) = parts(of, step, tasks);
            Action::More { round, created, tasks, nested }
        }
        StepState::Ending => {
            let outputs = Some(Bytes::from(vec![choice; 5]));
            Action::Finish { round, again: choice.is_multiple_of(2), outputs }
        }
        _ => return None,
    })
}

/// Returns the next tasks or workflows of a step, at most two.
fn parts(of: &Workflow, step: &Step, tasks: &[Option<Task>]) -> (Vec<Create>, Vec<CreateWorkflow>) {
    let wanted = step.wanted().min(2);
    if step.kind != Kind::Workflow {
        return (creates(of, step, step.round, step.created, wanted, tasks), Vec::new());
    }
    let nested = (step.created..step.created + wanted).map(|item| {
        let inner = PlannedStep {
            kind: 9,
            needs: Vec::new(),
            continues: false,
            finally: false,
            compensates: false,
            grouped: false,
            rounds: 1,
        };
        let mut create = new_workflow(of.nested_id(step.index, step.round, item), &[inner], false);
        let (depth, root) = (of.depth() + 1, of.root());
        let place = StepRef::of(of, step, step.round, item);
        create.workflow.parent = Some(Box::new(Parent { step: place, depth, root }));
        create.workflow.trace = Trace::default();
        create.foreign_id = false;
        create
    });
    (Vec::new(), nested.collect())
}

/// Returns tasks with ids that are free.
fn creates(
    of: &Workflow,
    step: &Step,
    round: u32,
    first: u32,
    count: u32,
    tasks: &[Option<Task>],
) -> Vec<Create> {
    let free: Vec<_> = (SLOTS..TASK_SLOTS).filter(|slot| tasks[usize::from(*slot)].is_none()).collect();
    let from = step.index as usize * 2 % free.len().max(1);
    let free = free[from..].iter().chain(&free[..from]).copied();
    let create = |(item, slot): (u32, u8)| Create {
        task: Task {
            step: Some(Box::new(StepRef::of(of, step, round, item))),
            ..Task::new(id(slot), namespace(0), Target::Agent(agent(slot % 2)))
        },
        payload: Bytes::from(vec![slot; 8]),
        secrets: None,
        given: Given::default(),
        key: None,
        // Another command of the batch may use it, too.
        foreign_id: true,
        strict: false,
        offer: None,
    };
    (first..first + count).zip(free).map(create).collect()
}
