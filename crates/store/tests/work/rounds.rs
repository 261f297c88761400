//! Loads of rounds of follow-ups: one for all that a round visits, whatever the number of routes, steps and members.

use std::time::Duration;

use bytes::Bytes;
use rota_core::WorkflowId;
use rota_core::target::Target;
use rota_core::task::DependencyKey;
use rota_core::workflow::{
    Command as Apply, Group, Kind, Parent, Place, Start, Step, StepRef, StepState, Workflow,
};
use rota_store::engine::Engine;
use rota_store::{Action, Command, CreateWorkflow, Need, NewRound, NewStep, Reply, WorkflowCommand};
use uuid::Uuid;

use super::{
    Calls, Counting, NOW, agent, calls, cancel, create, dependents, id, namespace, needing, put_agent,
};

pub(super) fn workflow(number: usize, change: impl FnOnce(&mut Workflow), steps: Vec<NewStep>) -> Command {
    let mut workflow = Workflow::new(WorkflowId(Uuid::from_u128(number as u128 + 1)), namespace());
    change(&mut workflow);
    WorkflowCommand::Create(Box::new(CreateWorkflow::new(workflow, steps))).into()
}

pub(super) fn step(index: usize, needs: Option<usize>, has_dependents: bool) -> NewStep {
    let mut step = Step::new(format!("s{index}"), Kind::Signal { timeout: None });
    (step.needs, step.has_dependents) = (u32::from(needs.is_some()), has_dependents);
    let needs = needs.map(|step| Need { step: u32::try_from(step).unwrap(), continues: false });
    NewStep { step, spec: Bytes::new(), needs: needs.into_iter().collect() }
}

/// Executes a batch, then its follow-ups to their end. Returns the most loads of one commit.
fn most_loads(engine: &mut Engine<Counting>, batch: Vec<Command>) -> u32 {
    let (mut calls, _) = super::calls(engine, batch);
    let mut most = calls.loads;
    while engine.has_backlog() {
        (calls, _) = super::calls(engine, Vec::new());
        assert_eq!(calls.writes, 1);
        most = most.max(calls.loads);
    }
    most
}

fn change_of_agent(routes: usize) -> Calls {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0)]);
    let isolated = |number| create(number, Target::Task { id: id(number), agent: agent(0) }, None);
    calls(&mut engine, (0..routes).map(isolated).collect());
    let Command::PutAgent(mut changed) = put_agent(0) else { unreachable!() };
    changed.agent.defaults.queue_timeout = Some(Duration::from_secs(60));
    let (first, _) = calls(&mut engine, vec![Command::PutAgent(changed)]);
    assert!(first.tasks_written <= 256 && first.rows_read <= 256, "{first:?}");
    let mut written = first.tasks_written;
    while engine.has_backlog() {
        let (calls, _) = calls(&mut engine, Vec::new());
        assert!(calls.loads <= 2, "a page of all routes, and those that wait for the agent: {calls:?}");
        written += calls.tasks_written;
    }
    assert_eq!(written, routes);
    first
}

#[test]
fn routes_of_an_agent_are_loaded_together() {
    assert_eq!(change_of_agent(100).loads, 2);
    assert_eq!(change_of_agent(10_000).loads, 2);
}

#[test]
fn routes_of_an_agent_share_one_bound() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0)]);
    let shared = |number| create(number, Target::Agent(agent(0)), None);
    let isolated = |number| create(number, Target::Task { id: id(number), agent: agent(0) }, None);
    calls(&mut engine, (0..200).map(shared).chain((200..400).map(isolated)).collect());
    let Command::PutAgent(mut changed) = put_agent(0) else { unreachable!() };
    changed.agent.defaults.queue_timeout = Some(Duration::from_secs(60));
    let (first, _) = calls(&mut engine, vec![Command::PutAgent(changed)]);
    assert_eq!((first.loads, first.tasks_written), (2, 256));
    let mut written = first.tasks_written;
    while engine.has_backlog() {
        written += calls(&mut engine, Vec::new()).0.tasks_written;
    }
    assert_eq!(written, 400);
}

/// Returns the most loads of a commit when the first step of a workflow is skipped, with pairs of steps that need it.
fn skip(pairs: usize) -> u32 {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let pair = |pair| [step(2 * pair + 1, Some(0), true), step(2 * pair + 2, Some(2 * pair + 1), false)];
    let steps = std::iter::once(step(0, None, true)).chain((0..pairs).flat_map(pair)).collect();
    let (_, replies) = calls(&mut engine, vec![workflow(0, |_| {}, steps)]);
    let Reply::Workflow { workflow, .. } = &replies[0] else { panic!("{replies:?}") };
    let skip = WorkflowCommand::Drive { workflow: workflow.key, step: 0, action: Box::new(Action::Skip) };
    most_loads(&mut engine, vec![skip.into()])
}

#[test]
fn steps_that_follow_are_loaded_together() {
    let (few, many) = (skip(100), skip(10_000));
    assert!(few <= 5 && many <= 5, "{few} and {many}");
}

/// Returns the loads of a batch that ends so many steps at a time of a workflow of which no more may run, with 1,000 that wait for that.
fn ends(count: u32) -> u32 {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let steps = (0..1000 + count as usize).map(|index| step(index, None, false)).collect();
    let (_, replies) = calls(&mut engine, vec![workflow(0, |workflow| workflow.max_parallel = count, steps)]);
    let Reply::Workflow { workflow, .. } = &replies[0] else { panic!("{replies:?}") };
    let skip = |step| WorkflowCommand::Drive { workflow: workflow.key, step, action: Box::new(Action::Skip) };
    engine.backend().calls = Calls::default();
    let outcome = engine.run((0..count).map(|step| skip(step).into()).collect(), NOW).unwrap();
    let started: Vec<_> = outcome.commit.steps.iter().filter(|step| step.state == StepState::Ready).collect();
    let expected: Vec<_> = (count..2 * count).collect();
    assert_eq!(started.iter().map(|step| step.index).collect::<Vec<_>>(), expected);
    engine.backend().calls.loads
}

#[test]
fn held_steps_are_loaded_once_per_batch() {
    let (few, many) = (ends(2), ends(64));
    assert!(few <= 3 && many <= 3, "{few} and {many}");
}

#[test]
fn replaced_members_are_loaded_together() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let member = |number, replaces| {
        let group = Group { name: "g".to_owned(), limit: 1, replaces, place: Place::Outside };
        workflow(number, |workflow| workflow.group = Some(Box::new(group)), vec![step(0, None, false)])
    };
    for number in 0..50 {
        calls(&mut engine, vec![member(number, false)]);
    }
    let loads = most_loads(&mut engine, vec![member(50, true)]);
    assert!(loads <= 6, "{loads} loads for 50 members");
}

#[test]
fn due_workflows_are_loaded_together() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let due = |number| {
        workflow(number, |workflow| workflow.timeout = Some(Duration::ZERO), vec![step(0, None, false)])
    };
    calls(&mut engine, (0..100).map(due).collect());
    let (due, replies) = calls(&mut engine, vec![Command::tick(100)]);
    assert!(matches!(replies[..], [Reply::Ticked(100)]), "{replies:?}");
    assert!(due.loads <= 6, "what is due, the workflows, their steps that have begun: {due:?}");
}

#[test]
fn expired_workflows_are_loaded_together() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, (0..100).map(|number| workflow(number, |_| {}, vec![step(0, None, false)])).collect());
    let cancel = |number: usize| {
        let (id, reason) = (WorkflowId(Uuid::from_u128(number as u128 + 1)), String::new());
        WorkflowCommand::Apply { namespace: namespace(), id, command: Apply::Cancel { reason } }.into()
    };
    calls(&mut engine, (0..100).map(cancel).collect());
    while engine.has_backlog() {
        calls(&mut engine, Vec::new());
    }
    let before = rota_core::Timestamp(NOW.0 + 1);
    let prune = rota_store::Prune { ended_before: Some(before), left_before: NOW, limit: 1000 };
    let loads = most_loads(&mut engine, vec![Command::Prune(prune)]);
    assert!(loads <= 4, "{loads} loads");
}

/// Returns the most loads of a commit that continues the creation of so many tasks for which others wait, and which wait for others.
fn found(count: usize) -> u32 {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), create(0, Target::Agent(agent(0)), None)]);
    calls(&mut engine, dependents(600));
    let needs = |number: usize, needed: usize| needing(number, [DependencyKey::Id(id(needed))]);
    // Of a chain, the second task is missing, and what the last one needs.
    let chain =
        |at: usize| [needs(5000 + at, 6000 + at), needs(7000 + at, 8000 + at), needs(8000 + at, 9000 + at)];
    calls(&mut engine, (0..count).flat_map(chain).collect());
    // The first end leaves the others to later commits.
    let missing = (0..count).map(|at| needs(6000 + at, 7000 + at));
    most_loads(&mut engine, std::iter::once(cancel(0)).chain(missing).collect())
}

#[test]
fn searches_for_cycles_are_loaded_together() {
    let (few, many) = (found(3), found(30));
    assert!(few == many, "{few} and {many}");
}

/// Returns the most loads of a commit that pauses a workflow, of which so many are steps that have one as a step each.
fn pause(count: usize) -> u32 {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let call = |index: usize| {
        let mut step = step(index, None, false);
        (step.step.kind, step.step.index) = (Kind::Workflow, u32::try_from(index).unwrap());
        step
    };
    let start = |of: &Workflow, index: u32, steps: Vec<NewStep>| {
        let mut nested = Workflow::new(of.nested_id(index, 1, 0), namespace());
        let place = StepRef::of(of, &call(index as usize).step, 1, 0);
        nested.parent = Some(Box::new(Parent { step: place, depth: of.depth() + 1, root: of.root() }));
        let mut create = CreateWorkflow::new(nested.clone(), steps);
        create.foreign_id = false;
        let start = Start { round: 1, total: 1, ..Start::default() };
        let action = Action::Start(NewRound { start, nested: vec![create], ..NewRound::default() });
        let command = WorkflowCommand::Drive { workflow: of.key, step: index, action: Box::new(action) };
        (nested.id, command.into())
    };
    let outer = workflow(0, |_| {}, (0..count).map(call).collect());
    let (_, replies) = calls(&mut engine, vec![outer]);
    let [Reply::Workflow { workflow: outer, .. }] = &replies[..] else { panic!("{replies:?}") };
    let (ids, starts): (Vec<_>, Vec<_>) =
        (0..count).map(|index| start(outer, u32::try_from(index).unwrap(), vec![call(0)])).unzip();
    let started = engine.run(starts, NOW).unwrap();
    let middle = started.commit.workflows.iter().filter(|workflow| ids.contains(&workflow.id));
    let inner: Vec<_> = middle.map(|of| start(of, 0, vec![step(0, None, false)]).1).collect();
    assert_eq!(inner.len(), count);
    calls(&mut engine, inner);
    while engine.has_backlog() {
        calls(&mut engine, Vec::new());
    }
    let (id, command) = (outer.id, Apply::Pause { suspend: false });
    let pause = WorkflowCommand::Apply { namespace: namespace(), id, command };
    let (mut batch, mut paused, mut most) = (vec![pause.into()], 0, 0);
    while !batch.is_empty() || engine.has_backlog() {
        engine.backend().calls = Calls::default();
        let outcome = engine.run(std::mem::take(&mut batch), NOW).unwrap();
        paused += outcome.commit.workflows.iter().filter(|workflow| workflow.paused).count();
        most = most.max(engine.backend().calls.loads);
    }
    assert!(paused > 2 * count, "those that are its steps are not paused, or theirs");
    most
}

#[test]
fn commands_to_nested_workflows_are_loaded_together() {
    let (few, many) = (pause(3), pause(30));
    assert!(few == many, "{few} and {many}");
}
