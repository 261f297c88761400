//! Rows that a commit removes of a workflow.

use bytes::Bytes;
use rota_core::workflow::{Command as Apply, Kind, Start, Step, StepCommand, Workflow};
use rota_core::{WorkflowId, WorkflowKey};
use rota_store::engine::Engine;
use rota_store::{
    Action, Command, CreateWorkflow, NewRound, NewStep, Reader, Reply, WorkflowCommand, WorkflowQuery,
};
use uuid::Uuid;

use super::{Counting, calls, namespace};

const ID: WorkflowId = WorkflowId(Uuid::from_u128(1));

/// Returns an engine with a workflow of steps that wait for signals.
fn with_workflow(steps: u32) -> (Engine<Counting>, WorkflowKey) {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let step = |index| {
        let step = Step::new(format!("s{index}"), Kind::Signal { timeout: None });
        NewStep { step, spec: Bytes::from_static(b"spec"), needs: Vec::new() }
    };
    let steps = (0..steps).map(step).collect();
    let create = CreateWorkflow::new(Workflow::new(ID, namespace()), steps);
    let (_, replies) = calls(&mut engine, vec![WorkflowCommand::Create(Box::new(create)).into()]);
    let Reply::Workflow { workflow, .. } = &replies[0] else { panic!("{replies:?}") };
    (engine, workflow.key)
}

fn apply(engine: &mut Engine<Counting>, command: Apply) {
    calls(engine, vec![WorkflowCommand::Apply { namespace: namespace(), id: ID, command }.into()]);
}

fn query(engine: &mut Engine<Counting>, query: WorkflowQuery) -> rota_store::WorkflowRows {
    Reader::workflows(&engine.backend().inner, &query).unwrap()
}

/// Deletes the workflow. Returns how many rows each commit has removed, by their number before and after it. The store is opened
/// again between the commits.
fn removed(mut engine: Engine<Counting>, count: impl Fn(&mut Engine<Counting>) -> usize) -> Vec<usize> {
    while engine.has_backlog() {
        calls(&mut engine, Vec::new());
    }
    let (mut removed, mut before) = (Vec::new(), count(&mut engine));
    apply(&mut engine, Apply::Delete);
    loop {
        let left = count(&mut engine);
        removed.push(before - left);
        before = left;
        if !engine.has_backlog() {
            break;
        }
        let inner = engine.backend().inner.clone();
        engine = Engine::new(Counting { inner, ..Counting::default() }, 1).unwrap();
        calls(&mut engine, Vec::new());
    }
    assert_eq!(before, 0);
    removed
}

#[test]
fn steps_are_removed_in_pieces() {
    let (mut engine, key) = with_workflow(600);
    apply(&mut engine, Apply::Cancel { reason: String::new() });
    let steps = |engine: &mut Engine<Counting>| {
        query(engine, WorkflowQuery::Steps { workflow: key, from: 0, limit: 1000 }).steps.len()
    };
    assert_eq!(removed(engine, steps), [256, 256, 88]);
}

#[test]
fn removal_is_bounded_in_bytes() {
    let (mut engine, key) = with_workflow(20);
    for step in 0..20 {
        let start = Start { round: 1, ..Start::default() };
        let action = Box::new(Action::Start(NewRound { start, ..NewRound::default() }));
        calls(&mut engine, vec![WorkflowCommand::Drive { workflow: key, step, action }.into()]);
        let output = Some(Bytes::from(vec![7; 1 << 20]));
        let (namespace, command) = (namespace(), StepCommand::Signal);
        let signal: Command = WorkflowCommand::Step { namespace, id: ID, step, command, output }.into();
        calls(&mut engine, vec![signal]);
    }
    let outputs = |engine: &mut Engine<Counting>| {
        query(engine, WorkflowQuery::Outputs(key, (0..20).collect())).bodies.len()
    };
    // Eight MiB, and the row that exceeds them.
    assert_eq!(removed(engine, outputs), [9, 9, 2]);
}
