//! The end of a holder of a concurrency group.

use rota_core::WorkflowId;
use rota_core::workflow::{Group, Kind, Place, Step, Workflow};
use rota_store::engine::Engine;
use rota_store::{Backend, Command, CreateWorkflow, NewStep, WorkflowCommand};
use uuid::Uuid;

use super::{Calls, Counting, NOW, calls, namespace};

/// Returns an engine with so many workflows of a group, and the creation of a further one.
fn group(members: usize, replaces: bool) -> (Engine<Counting>, Command) {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let create = |number: usize, replaces: bool| {
        let id = WorkflowId(Uuid::from_u128(number as u128 + 1));
        let mut workflow = Workflow::new(id, namespace());
        let (name, place) = ("g".to_owned(), Place::Outside);
        workflow.group = Some(Box::new(Group { name, limit: 1, replaces, place }));
        let step = Step::new("a".to_owned(), Kind::Signal { timeout: None });
        let create = CreateWorkflow::new(workflow, vec![NewStep::new(step)]);
        Command::from(WorkflowCommand::Create(Box::new(create)))
    };
    for number in 0..members {
        calls(&mut engine, vec![create(number, false)]);
    }
    while !engine.backend().snapshot().unwrap().follow_ups.is_empty() {
        calls(&mut engine, Vec::new());
    }
    (engine, create(members, replaces))
}

/// Returns the calls of the commit in which a holder of a concurrency group ends, for which others wait.
fn turn_of_a_group(waiting: usize) -> Calls {
    let (mut engine, _) = group(waiting + 1, false);
    let cancel = rota_core::workflow::Command::Cancel { reason: String::new() };
    let id = WorkflowId(Uuid::from_u128(1));
    let cancel = WorkflowCommand::Apply { namespace: namespace(), id, command: cancel };
    engine.backend().calls = Calls::default();
    let outcome = engine.run(vec![cancel.into()], NOW).unwrap();
    let admitted = outcome.commit.workflows.iter().filter(|one| one.admitted_at.is_some() && !one.cancelled);
    assert_eq!(admitted.map(|one| one.id).collect::<Vec<_>>(), [WorkflowId(Uuid::from_u128(2))]);
    engine.backend().calls
}

#[test]
fn replaced_members_are_loaded_together() {
    for members in [5, 50] {
        let (mut engine, newest) = group(members, true);
        engine.backend().calls = Calls::default();
        let outcome = engine.run(vec![newest], NOW).unwrap();
        let cancelled = outcome.commit.workflows.iter().filter(|one| one.cancelled).count();
        assert_eq!((cancelled, engine.backend().calls.workflow_loads), (members, 1));
    }
}

#[test]
fn turn_of_a_group_is_independent_of_waiters() {
    let (few, many) = (turn_of_a_group(100), turn_of_a_group(1000));
    assert_eq!(few, many);
    assert_eq!(few.writes, 1);
}
