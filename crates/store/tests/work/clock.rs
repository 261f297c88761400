//! Jumps of the clock, which move the deadlines of all tasks on workers.

use std::time::Duration;

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, Task};
use rota_core::{Fence, Timestamp};
use rota_store::engine::Engine;
use rota_store::{Command, Reader, Reply};

use super::{Counting, NOW, agent, calls, create, hello, id, namespace, on, put_agent, worker};

/// More than two commits move.
const MANY: usize = 600;
const HOUR: Duration = Duration::from_secs(3600);
/// When the jump is noticed.
const NOTICED: Timestamp = Timestamp(NOW.0 + 3_600_000_000 + 5_000_000);
const LATER: Timestamp = Timestamp(NOTICED.0 + 1_000_000);

fn attempt() -> AttemptRef {
    AttemptRef { by: worker(0), fence: Fence(1) }
}

/// Returns an engine with running tasks, and one that is queued.
fn running() -> Engine<Counting> {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let offered = |number| create(number, Target::Agent(agent(0)), Some(worker(0)));
    calls(&mut engine, (0..MANY).map(offered).collect());
    calls(&mut engine, (0..MANY).map(|number| on(id(number), task::Command::Accept(attempt()))).collect());
    engine
}

fn restarted(engine: &mut Engine<Counting>) -> Engine<Counting> {
    let inner = engine.backend().inner.clone();
    Engine::new(Counting { inner, ..Counting::default() }, 1).unwrap()
}

/// Executes a batch, and returns the number of records that it wrote.
fn run(engine: &mut Engine<Counting>, batch: Vec<Command>) -> usize {
    engine.backend().calls = Default::default();
    let outcome = engine.run(batch, LATER).unwrap();
    assert!(outcome.replies.iter().all(Result::is_ok), "{:?}", outcome.replies);
    engine.backend().calls.tasks_written
}

fn read(engine: &mut Engine<Counting>, number: usize) -> Task {
    Reader::task(&engine.backend().inner, &(namespace(), id(number))).unwrap().unwrap()
}

fn jump(engine: &mut Engine<Counting>) {
    engine.backend().calls = Default::default();
    let outcome = engine.run(vec![Command::ClockJumped { by: HOUR }], NOTICED).unwrap();
    assert!(matches!(outcome.replies[..], [Ok(Reply::Ticked(MANY))]), "{:?}", outcome.replies);
    assert_eq!(engine.backend().calls.tasks_written, 256);
}

#[test]
fn jump_moves_deadlines_in_pieces_over_restarts() {
    let mut engine = running();
    let due: Vec<_> = (0..MANY).map(|number| read(&mut engine, number).due().unwrap()).collect();
    jump(&mut engine);
    let mut pieces = 1;
    while engine.has_backlog() {
        engine = restarted(&mut engine);
        assert!(run(&mut engine, Vec::new()) <= 256);
        pieces += 1;
    }
    assert_eq!(pieces, 3);
    for (number, due) in due.into_iter().enumerate() {
        assert_eq!(read(&mut engine, number).due(), Some(due + HOUR), "task {number}");
    }
}

/// Tasks of a later piece have commands before it.
#[test]
fn commands_between_the_pieces_find_moved_deadlines() {
    let mut engine = running();
    jump(&mut engine);
    let (reported, ended, reassigned) = (MANY - 1, MANY - 2, MANY - 3);
    let due = read(&mut engine, reported).due().unwrap();
    let finish = |number, completion| {
        let (session, attempt) = (String::new(), attempt());
        on(
            id(number),
            task::Command::Finish { attempt, last: 0, completion, usage: None, session, jitter: 0.0 },
        )
    };
    let report = task::Command::UseModel { attempt: attempt(), access: Default::default() };
    let lost = Completion::Stopped { by: "its worker".to_owned() };
    let batch = vec![
        // No deadline of a later piece is judged.
        Command::tick(1000),
        on(id(reported), report),
        finish(ended, Completion::Succeeded(Some(Bytes::from_static(b"done")))),
        finish(reassigned, lost),
        create(MANY, Target::Agent(agent(0)), Some(worker(0))),
    ];
    run(&mut engine, batch);
    assert_eq!(read(&mut engine, reported).due(), Some(due + HOUR));
    assert!(read(&mut engine, ended).worked < HOUR, "{:?}", read(&mut engine, ended).worked);
    let unmoved = read(&mut engine, MANY);
    while engine.has_backlog() {
        run(&mut engine, Vec::new());
    }
    assert_eq!(read(&mut engine, reported).due(), Some(due + HOUR), "once");
    assert_eq!(read(&mut engine, MANY), unmoved, "it was assigned behind the jump");
    for number in 0..MANY {
        assert!(!matches!(read(&mut engine, number).state, task::State::Failed), "task {number}");
    }
}
