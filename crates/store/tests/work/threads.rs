//! Loads for tasks of threads.

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion};
use rota_store::Command;
use rota_store::engine::Engine;

use super::{Calls, Counting, agent, calls, cancel, create, hello, id, needing, on, put_agent, worker};

fn in_thread(command: Command, thread: usize) -> Command {
    let Command::Create(mut create) = command else { unreachable!() };
    create.task.thread = Some(format!("thread-{thread}"));
    Command::Create(create)
}

/// Returns the calls of the batches in which the tasks in the middle of so many threads end, and then the first ones.
fn ends(threads: usize) -> [Calls; 2] {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let mut add = |place: usize, offer: Option<task::WorkerRef>| {
        let new = |thread: usize| create(place * threads + thread, Target::Agent(agent(0)), offer.clone());
        calls(&mut engine, (0..threads).map(|thread| in_thread(new(thread), thread)).collect()).0
    };
    add(0, Some(worker(0)));
    assert_eq!(add(1, None).loads, 1, "the threads; their last tasks are on workers");
    assert_eq!(add(2, None).loads, 2, "the threads, then their last tasks");
    // The tasks in the middle end before those that they wait for.
    let (cancelled, _) = calls(&mut engine, (threads..2 * threads).map(cancel).collect());
    let attempt = AttemptRef { by: worker(0), fence: rota_core::Fence(1) };
    let finish = |number| {
        on(
            id(number),
            task::Command::Finish {
                attempt: attempt.clone(),
                last: 0,
                completion: Completion::Succeeded(Some(Bytes::from_static(b"done"))),
                usage: None,
                session: String::new(),
                jitter: 0.0,
            },
        )
    };
    let (finished, _) = calls(&mut engine, (0..threads).map(finish).collect());
    [cancelled, finished]
}

#[test]
fn threads_are_loaded_together() {
    for (threads, of_finished) in [(10, 1), (100, 2)] {
        let [cancelled, finished] = ends(threads);
        assert_eq!(cancelled.loads, 2, "the tasks, then their dependents and threads: {threads} threads");
        // The first load of a batch has dependents of sixteen tasks, a second one those of the others.
        assert_eq!((finished.loads, finished.writes), (of_finished, 1), "{threads} threads");
    }
}

/// Returns the loads of a commit in which a task ends that the second task of so many threads needs, whose first ones wait.
fn broken(threads: usize) -> u32 {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), create(0, Target::Agent(agent(0)), None)]);
    let needed = || [task::DependencyKey::Id(id(0))];
    let second = |thread: usize| in_thread(needing(1000 + thread, needed()), thread);
    let other = |number: usize, thread: usize| {
        in_thread(create(number + thread, Target::Agent(agent(0)), None), thread)
    };
    calls(&mut engine, (0..threads).map(|thread| other(500, thread)).collect());
    calls(&mut engine, (0..threads).map(second).collect());
    calls(&mut engine, (0..threads).map(|thread| other(1500, thread)).collect());
    let (cancelled, _) = calls(&mut engine, vec![cancel(0)]);
    assert_eq!(cancelled.tasks_written, 1 + 2 * threads, "the needed task, the second and the third ones");
    cancelled.loads
}

#[test]
fn tasks_before_ended_ones_are_loaded_together() {
    let (few, many) = (broken(10), broken(50));
    assert!(few == many && many <= 4, "{few} and {many}");
}
