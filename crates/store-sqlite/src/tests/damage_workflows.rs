//! Damaged workflows and steps harm themselves alone.

use rota_core::workflow::{self, Group, Kind, Parent, Place, Start, Step, StepRef, Workflow};
use rota_core::{Namespace, Timestamp, WorkflowId, WorkflowKey};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::{
    Action, Command, Create, CreateWorkflow, Need, NewRound, NewStep, Refused, Reply, WorkflowCommand,
};

use super::{NOW, create, id};
use crate::Writer;

const DAMAGE: &str = "x'81a57374617465a46e6577'";

fn open(folder: &std::path::Path) -> Engine<Writer> {
    let (writer, _readers) = crate::open_connections(&folder.join("rota.db")).unwrap();
    Engine::new(writer, 0).unwrap()
}

fn run(engine: &mut Engine<Writer>, batch: Vec<Command>) -> BatchOutcome {
    engine.run(batch, NOW).unwrap()
}

fn execute(engine: &mut Engine<Writer>, sql: &str) {
    assert_eq!(engine.backend().connection().execute(sql, []).unwrap(), 1, "{sql}");
}

fn count(engine: &mut Engine<Writer>, sql: &str) -> i64 {
    engine.backend().connection().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn workflow(number: u128, steps: usize, key: Option<&str>) -> Command {
    let step = |number: usize| NewStep::new(Step::new(format!("step-{number}"), Kind::Task));
    let workflow = Workflow::new(WorkflowId(id(number).0), Namespace::new("n").unwrap());
    let create = CreateWorkflow::new(workflow, (0..steps).map(step).collect());
    let create = CreateWorkflow { key: key.map(str::to_owned), foreign_id: true, ..create };
    WorkflowCommand::Create(Box::new(create)).into()
}

fn on(number: u128, command: workflow::Command) -> Command {
    let (namespace, id) = (Namespace::new("n").unwrap(), WorkflowId(id(number).0));
    WorkflowCommand::Apply { namespace, id, command }.into()
}

#[test]
fn damaged_workflow_fails_no_other_call() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = open(folder.path());
    run(&mut engine, vec![workflow(0, 2, Some("key"))]);
    execute(&mut engine, &format!("UPDATE workflows SET record = {DAMAGE}"));
    let batch = vec![
        workflow(0, 2, None),
        create(1, 10),
        workflow(2, 1, Some("key")),
        workflow(3, 1, None),
        on(0, workflow::Command::Cancel { reason: String::new() }),
    ];
    let outcome = run(&mut engine, batch);
    let [
        Err(Refused::Corrupt { what, .. }),
        Ok(Reply::Created(_)),
        Err(Refused::Corrupt { .. }),
        Ok(Reply::Workflow { created: true, .. }),
        Ok(Reply::Workflow { workflow: cancelled, created: false }),
    ] = &outcome.replies[..]
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(*what, format!("workflow {}", id(0)));
    assert!(cancelled.message.contains("cannot be decoded"), "{cancelled:?}");
    assert_eq!(outcome.commit.undecodable.len(), 1);
    let outcome = run(&mut engine, vec![on(0, workflow::Command::Delete), create(4, 10)]);
    assert!(matches!(outcome.replies[0], Ok(Reply::Deleted)), "{outcome:?}");
    assert_eq!(outcome.commit.undecodable, [], "reported once");
    while engine.has_backlog() {
        run(&mut engine, Vec::new());
    }
    assert_eq!(count(&mut engine, "SELECT count(*) FROM workflows"), 1);
    assert_eq!(count(&mut engine, "SELECT count(*) FROM steps"), 1);
    let outcome = run(&mut engine, vec![workflow(0, 2, Some("key"))]);
    assert!(matches!(outcome.replies[0], Ok(Reply::Workflow { created: true, .. })), "{outcome:?}");
}

/// Returns the creation of a workflow in group `g`, or with a step in it.
fn grouped(number: u128, of_steps: bool) -> Command {
    let Command::Workflow(mut made) = workflow(number, 2, None) else { unreachable!() };
    let WorkflowCommand::Create(create) = &mut *made else { unreachable!() };
    let (name, place) = ("g".to_owned(), Place::Outside);
    let group = Some(Box::new(Group { name, limit: 1, replaces: false, place }));
    match of_steps {
        true => create.steps[0].step.group = group,
        false => create.workflow.group = group,
    }
    Command::Workflow(made)
}

#[test]
fn deleted_damaged_holder_leaves_its_group() {
    for of_steps in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = open(folder.path());
        run(&mut engine, vec![grouped(0, of_steps)]);
        run(&mut engine, vec![grouped(1, of_steps)]);
        let first = count(&mut engine, "SELECT min(key) FROM workflows");
        let holder = "SELECT workflow FROM group_members WHERE holds";
        assert_eq!(count(&mut engine, holder), first);
        let table = if of_steps { "steps" } else { "workflows" };
        let which = if of_steps { "step = 0 AND workflow" } else { "key" };
        execute(&mut engine, &format!("UPDATE {table} SET record = {DAMAGE} WHERE {which} = {first}"));
        if of_steps {
            let outcome = run(&mut engine, vec![on(0, workflow::Command::Delete)]);
            let unended = Refused::Workflow(workflow::Rejected::Unended);
            assert_eq!(outcome.replies[0].as_ref().unwrap_err(), &unended, "it runs");
            run(&mut engine, vec![on(0, workflow::Command::Cancel { reason: String::new() })]);
            while engine.has_backlog() {
                run(&mut engine, Vec::new());
            }
        }
        let outcome = run(&mut engine, vec![on(0, workflow::Command::Delete)]);
        assert!(outcome.replies[0].is_ok(), "{outcome:?}");
        let mut removed = outcome.commit.removed_workflows;
        while engine.has_backlog() {
            removed.extend(run(&mut engine, Vec::new()).commit.removed_workflows);
        }
        assert_eq!(removed.iter().map(|key| i64::try_from(key.0).unwrap()).collect::<Vec<_>>(), [first]);
        assert_eq!(count(&mut engine, "SELECT count(*) FROM workflows"), 1);
        assert_eq!(count(&mut engine, "SELECT count(*) FROM group_members"), 1);
        assert!(count(&mut engine, holder) > first, "the next one has its place");
    }
}

#[test]
fn damaged_deadlines_stop_no_timer() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = open(folder.path());
    run(&mut engine, vec![workflow(0, 1, None)]);
    execute(&mut engine, &format!("UPDATE workflows SET record = {DAMAGE}, due = 5, ended = 6"));
    execute(&mut engine, &format!("UPDATE steps SET record = {DAMAGE}, due = 7"));
    let tick = || vec![Command::tick(10)];
    let outcome = run(&mut engine, tick());
    assert!(matches!(outcome.replies[0], Ok(Reply::Ticked(2))), "{outcome:?}");
    assert_eq!(outcome.commit.undecodable.len(), 2, "{outcome:?}");
    assert!(outcome.commit.next_due.is_none_or(|due| due > NOW), "{outcome:?}");
    let outcome = run(&mut engine, tick());
    assert!(matches!(outcome.replies[0], Ok(Reply::Ticked(0))), "{outcome:?}");
    let prune = rota_store::Prune { ended_before: Some(NOW), left_before: Timestamp(0), limit: 1 };
    let outcome = run(&mut engine, vec![Command::Prune(prune)]);
    assert!(matches!(outcome.replies[0], Ok(Reply::Pruned { more: false, .. })), "{outcome:?}");
    // A start takes them back, for a version that can decode them.
    drop(engine);
    let mut engine = open(folder.path());
    assert_eq!(count(&mut engine, "SELECT due + ended FROM workflows"), 11);
    assert_eq!(count(&mut engine, "SELECT due FROM steps"), 7);
}

/// Steps that can be decoded are due again and again with a workflow that cannot be.
#[test]
fn deadlines_of_a_damaged_workflow_stop_no_timer() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = open(folder.path());
    run(&mut engine, vec![workflow(0, 1, None)]);
    execute(&mut engine, &format!("UPDATE workflows SET record = {DAMAGE}"));
    execute(&mut engine, "UPDATE steps SET due = 7");
    let tick = || vec![Command::tick(10)];
    let outcome = run(&mut engine, tick());
    assert!(matches!(outcome.replies[0], Ok(Reply::Ticked(1))), "{outcome:?}");
    assert_eq!(outcome.commit.undecodable.len(), 1, "{outcome:?}");
    assert!(outcome.commit.next_due.is_none_or(|due| due > NOW), "{outcome:?}");
    let outcome = run(&mut engine, tick());
    assert!(matches!(outcome.replies[0], Ok(Reply::Ticked(0))), "{outcome:?}");
    // A start takes it back, for a version that can decode its workflow.
    drop(engine);
    let mut engine = open(folder.path());
    assert_eq!(count(&mut engine, "SELECT due FROM steps"), 7);
}

/// A page of steps is not the last one because one of them cannot be decoded.
#[test]
fn damaged_step_hides_no_other_from_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = open(folder.path());
    run(&mut engine, vec![workflow(0, 600, None)]);
    let active = "SELECT count(*) FROM steps WHERE state IN (3, 4, 5)";
    assert_eq!(count(&mut engine, active), 600);
    execute(&mut engine, &format!("UPDATE steps SET record = {DAMAGE} WHERE step = 5"));
    run(&mut engine, vec![on(0, workflow::Command::Cancel { reason: String::new() })]);
    while engine.has_backlog() {
        run(&mut engine, Vec::new());
    }
    assert_eq!(count(&mut engine, active), 1);
}

#[test]
fn damaged_steps_hide_no_dependents() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = open(folder.path());
    let Command::Workflow(mut made) = workflow(0, 601, None) else { unreachable!() };
    let WorkflowCommand::Create(create) = &mut *made else { unreachable!() };
    for dependent in &mut create.steps[1..] {
        dependent.needs = vec![Need { step: 0, continues: false }];
        dependent.step.needs = 1;
    }
    create.steps[0].step.has_dependents = true;
    run(&mut engine, vec![Command::Workflow(made)]);
    for step in [5, 300] {
        execute(&mut engine, &format!("UPDATE steps SET record = {DAMAGE} WHERE step = {step}"));
    }
    let key = count(&mut engine, "SELECT key FROM workflows");
    let workflow = WorkflowKey(u64::try_from(key).unwrap());
    let skip = WorkflowCommand::Drive { workflow, step: 0, action: Box::new(Action::Skip) };
    let outcome = run(&mut engine, vec![skip.into()]);
    assert!(outcome.replies[0].is_ok(), "{outcome:?}");
    while engine.has_backlog() {
        run(&mut engine, Vec::new());
    }
    assert_eq!(count(&mut engine, "SELECT count(*) FROM steps WHERE state < 2"), 2);
}

fn start(tasks: Vec<Create>, nested: Vec<CreateWorkflow>) -> Box<Action> {
    let start = Start { round: 1, total: 1, ..Start::default() };
    Box::new(Action::Start(NewRound { start, tasks, nested, ..NewRound::default() }))
}

/// Creates a workflow with one step, which runs another one. Returns the id of that.
fn nesting(engine: &mut Engine<Writer>, number: u128) -> WorkflowId {
    let make = |steps: usize| {
        let Command::Workflow(made) = workflow(number, steps, None) else { unreachable!() };
        let WorkflowCommand::Create(create) = *made else { unreachable!() };
        create
    };
    let mut outer = make(1);
    outer.steps[0].step.kind = Kind::Workflow;
    let outcome = run(engine, vec![WorkflowCommand::Create(outer).into()]);
    let Ok(Reply::Workflow { workflow: outer, .. }) = &outcome.replies[0] else { panic!("{outcome:?}") };
    let mut inner = make(2);
    (inner.foreign_id, inner.workflow.id) = (false, outer.nested_id(0, 1, 0));
    let workflow = outer.key;
    let step = StepRef::of(outer, &Step::new("step-0".to_owned(), Kind::Workflow), 1, 0);
    inner.workflow.parent = Some(Box::new(Parent { step, depth: 1, root: workflow }));
    let action = start(Vec::new(), vec![*inner]);
    let outcome = run(engine, vec![WorkflowCommand::Drive { workflow, step: 0, action }.into()]);
    assert!(outcome.replies[0].is_ok(), "{outcome:?}");
    outer.nested_id(0, 1, 0)
}

#[test]
fn damaged_nested_workflows_are_removed_with_theirs() {
    let (of_outer, of_inner) =
        ("workflow = (SELECT min(key) FROM workflows)", "(SELECT max(key) FROM workflows)");
    for (table, which, is_removed_first) in [
        ("workflows", format!("key = {of_inner}"), false),
        ("workflows", format!("key = {of_inner}"), true),
        ("steps", format!("step = 1 AND workflow = {of_inner}"), false),
        ("steps", of_outer.to_owned(), false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = open(folder.path());
        let inner = nesting(&mut engine, 0);
        execute(&mut engine, &format!("UPDATE {table} SET record = {DAMAGE} WHERE {which}"));
        let mut settled = |command: Command| {
            let mut outcome = run(&mut engine, vec![command]);
            while engine.has_backlog() {
                run(&mut engine, Vec::new());
            }
            (outcome.replies.remove(0), count(&mut engine, "SELECT count(*) FROM workflows"))
        };
        let (refused, left) = settled(on(0, workflow::Command::Delete));
        let unended = Refused::Workflow(workflow::Rejected::Unended);
        assert_eq!((refused.err(), left), (Some(unended), 2), "{which}");
        let (cancelled, _) = settled(on(0, workflow::Command::Cancel { reason: String::new() }));
        assert!(cancelled.is_ok(), "{cancelled:?}");
        if is_removed_first {
            let (namespace, command) = (Namespace::new("n").unwrap(), workflow::Command::Delete);
            let (_, left) = settled(WorkflowCommand::Apply { namespace, id: inner, command }.into());
            assert_eq!(left, 1);
        }
        let (deleted, left) = settled(on(0, workflow::Command::Delete));
        assert!(deleted.is_ok(), "{which}: {deleted:?}");
        assert_eq!((left, count(&mut engine, "SELECT count(*) FROM steps")), (0, 0), "{which}");
    }
}

/// Nothing of a damaged workflow ends its tasks and the workflows of its steps: its cancellation does, or that of the one around it.
#[test]
fn damaged_workflow_is_cancelled_with_what_it_has_left() {
    let (outer, inner) = ("(SELECT min(key) FROM workflows)", "(SELECT max(key) FROM workflows)");
    for damaged in [&[inner][..], &[outer], &[outer, inner]] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = open(folder.path());
        let nested = nesting(&mut engine, 0);
        let key = u64::try_from(count(&mut engine, "SELECT max(key) FROM workflows")).unwrap();
        let workflow = WorkflowKey(key);
        let Command::Create(mut task) = create(9, 1) else { unreachable!() };
        let of = Workflow { key: workflow, ..Workflow::new(nested, Namespace::new("n").unwrap()) };
        let place = StepRef::of(&of, &Step::new("step-0".to_owned(), Kind::Task), 1, 0);
        task.task.step = Some(Box::new(place));
        (task.key, task.foreign_id) = (None, false);
        let action = start(vec![*task], Vec::new());
        let drive = WorkflowCommand::Drive { workflow, step: 0, action };
        assert!(run(&mut engine, vec![drive.into()]).replies[0].is_ok());
        for key in damaged {
            execute(&mut engine, &format!("UPDATE workflows SET record = {DAMAGE} WHERE key = {key}"));
        }
        // Also after a start, which knows nothing of what was met before.
        drop(engine);
        let mut engine = open(folder.path());
        let mut settled = |command: Command| {
            let mut outcome = run(&mut engine, vec![command]);
            while engine.has_backlog() {
                run(&mut engine, Vec::new());
            }
            outcome.replies.remove(0)
        };
        let cancelled = settled(on(0, workflow::Command::Cancel { reason: String::new() }));
        assert!(matches!(cancelled, Ok(Reply::Workflow { created: false, .. })), "{cancelled:?}");
        let deleted = settled(on(0, workflow::Command::Delete));
        assert!(deleted.is_ok(), "{damaged:?}: {deleted:?}");
        assert_eq!(count(&mut engine, "SELECT count(*) FROM tasks WHERE state <> 8"), 0, "{damaged:?}");
        // What was around it was removed. What is left has ended or is damaged, and can be deleted.
        let (namespace, command) = (Namespace::new("n").unwrap(), workflow::Command::Delete);
        let delete = WorkflowCommand::Apply { namespace, id: nested, command };
        run(&mut engine, vec![delete.into()]);
        while engine.has_backlog() {
            run(&mut engine, Vec::new());
        }
        assert_eq!(count(&mut engine, "SELECT count(*) FROM workflows"), 0, "{damaged:?}");
    }
}
