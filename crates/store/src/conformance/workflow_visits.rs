//! What follows for the steps and tasks of a workflow: which held step starts, and which of two commands counts.

use std::time::Duration;

use rota_core::task::Desired;
use rota_core::workflow::{Command, Kind, Start, Step, StepCommand, StepRef, StepState, Workflow};
use rota_core::{TaskId, WorkflowId, WorkflowKey};
use uuid::Uuid;

use super::follow_ups::settle;
use super::harness::{Harness, namespace};
use crate::{Action, CreateWorkflow, NewRound, NewStep, Reply, WorkflowCommand, WorkflowQuery};

const ID: WorkflowId = WorkflowId(Uuid::from_u128(7));
/// More than the follow-ups of two commits take up.
const MANY: u32 = 600;

async fn create(t: &mut Harness, max_parallel: u32, steps: Vec<(Kind, bool)>) -> WorkflowKey {
    let mut workflow = Workflow::new(ID, namespace("n"));
    workflow.max_parallel = max_parallel;
    let steps = steps.into_iter().enumerate().map(|(index, (kind, finally))| {
        let step = Step { finally, ..Step::new(format!("s{index}"), kind) };
        NewStep::new(step)
    });
    let create = CreateWorkflow::new(workflow, steps.collect());
    match t.one(WorkflowCommand::Create(Box::new(create)).into()).await {
        Ok(Reply::Workflow { workflow, .. }) => workflow.key,
        other => panic!("not created: {other:?}"),
    }
}

fn to_step(step: u32, command: StepCommand) -> crate::Command {
    WorkflowCommand::Step { namespace: namespace("n"), id: ID, step, command, output: None }.into()
}

fn to_workflow(command: Command) -> crate::Command {
    WorkflowCommand::Apply { namespace: namespace("n"), id: ID, command }.into()
}

fn drive(workflow: WorkflowKey, step: u32, action: Action) -> crate::Command {
    WorkflowCommand::Drive { workflow, step, action: Box::new(action) }.into()
}

async fn state(t: &Harness, workflow: WorkflowKey, step: u32) -> StepState {
    let rows = t.store.workflows(WorkflowQuery::StepsAt(workflow, vec![step])).await.unwrap();
    rows.steps[0].state
}

/// Returns a start with the first tasks of a fan-out, or with none.
fn start(total: u32, tasks: Vec<crate::Create>) -> Action {
    let start = Start { round: 1, total, ..Start::default() };
    Action::Start(NewRound { start, tasks, ..NewRound::default() })
}

pub async fn held_finally_step_takes_no_place(t: &mut Harness) {
    let (signal, sleep) = (Kind::Signal { timeout: None }, Kind::Sleep { duration: Duration::from_secs(1) });
    let workflow = create(t, 1, vec![(signal, false), (sleep, false), (signal, true)]).await;
    t.one(drive(workflow, 0, start(0, Vec::new()))).await.unwrap();
    assert_eq!(state(t, workflow, 1).await, StepState::Held);
    // The signal for the finally-step has it in the batch in which the place becomes free.
    for reply in t.batch(vec![to_step(2, StepCommand::Signal), to_step(0, StepCommand::Signal)]).await {
        reply.unwrap();
    }
    settle(t).await;
    assert_eq!(state(t, workflow, 0).await, StepState::Succeeded);
    assert_eq!(state(t, workflow, 1).await, StepState::Ready);
    assert_eq!(state(t, workflow, 2).await, StepState::Held);
}

pub async fn suspension_ends_with_the_pause(t: &mut Harness) {
    t.agent("a").await;
    let workflow = create(t, 0, vec![(Kind::Task, false)]).await;
    let of = Workflow { key: workflow, ..Workflow::new(ID, namespace("n")) };
    let mut ids: Vec<TaskId> = Vec::new();
    while ids.len() < MANY as usize {
        let created = u32::try_from(ids.len()).unwrap();
        let tasks: Vec<_> = (created..MANY.min(created + 200))
            .map(|item| {
                let mut create = t.task();
                let place = StepRef::of(&of, &Step::new("s0".to_owned(), Kind::Task), 1, item);
                create.task.step = Some(Box::new(place));
                ids.push(create.task.id);
                create
            })
            .collect();
        let action = match created {
            0 => start(MANY, tasks),
            created => Action::More { round: 1, created, tasks, nested: Vec::new() },
        };
        t.one(drive(workflow, 0, action)).await.unwrap();
    }
    settle(t).await;
    t.one(to_workflow(Command::Pause { suspend: true })).await.unwrap();
    t.one(to_workflow(Command::RESUME)).await.unwrap();
    settle(t).await;
    for id in &ids {
        assert_eq!(t.read(*id).await.desired, Desired::Run);
    }
    t.one(to_workflow(Command::Pause { suspend: true })).await.unwrap();
    t.one(to_workflow(Command::RESUME)).await.unwrap();
    t.one(to_workflow(Command::Pause { suspend: true })).await.unwrap();
    settle(t).await;
    for id in &ids {
        assert_eq!(t.read(*id).await.desired, Desired::Suspended);
    }
}
