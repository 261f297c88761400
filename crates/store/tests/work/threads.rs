//! Loads for tasks of threads.

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion};
use rota_store::Command;
use rota_store::engine::Engine;

use super::{Counting, agent, calls, cancel, create, hello, id, on, put_agent, worker};

const THREADS: usize = 10;

fn in_thread(number: usize, is_offered: bool) -> Command {
    let offer = is_offered.then(|| worker(0));
    let Command::Create(mut create) = create(number, Target::Agent(agent(0)), offer) else { unreachable!() };
    create.task.thread = Some(format!("thread-{}", number % THREADS));
    Command::Create(create)
}

#[test]
fn threads_are_loaded_together() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    calls(&mut engine, (0..THREADS).map(|number| in_thread(number, true)).collect());
    let (created, _) =
        calls(&mut engine, (THREADS..2 * THREADS).map(|number| in_thread(number, false)).collect());
    assert_eq!(created.loads, 1, "the threads; their last tasks are on workers");
    let (created, _) =
        calls(&mut engine, (2 * THREADS..3 * THREADS).map(|number| in_thread(number, false)).collect());
    assert_eq!(created.loads, 2, "the threads, then their last tasks");
    // The tasks in the middle end before those that they wait for.
    let (cancelled, _) = calls(&mut engine, (THREADS..2 * THREADS).map(cancel).collect());
    assert_eq!(cancelled.loads as usize, THREADS + 2, "the tasks, the dependents of each, the threads");
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
    let (finished, _) = calls(&mut engine, (0..THREADS).map(finish).collect());
    assert_eq!((finished.loads, finished.writes), (1, 1), "{finished:?}");
}
