//! Steps besides the usual life of a task: reports, the end of a session, a deadline, a prune.

use std::time::Duration;

use bytes::Bytes;
use rota_core::Timestamp;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, EventEffect, Item, Loss};
use rota_store::{Command, EndSession, Prune, Reply};

use super::{Calls, NOW, agent, calls, cancel, create, filled, id, namespace, on, worker};

/// Returns the calls of each step, in a store of a given size.
fn steps(size: usize) -> [Calls; 4] {
    let mut engine = filled(size);
    let (reported, due, expired) = (5 * size, 5 * size + 1, 5 * size + 2);
    let target = || Target::Agent(agent(0));
    let attempt = AttemptRef { by: worker(0), fence: rota_core::Fence(1) };
    calls(&mut engine, vec![create(reported, target(), Some(worker(0)))]);
    calls(&mut engine, vec![on(id(reported), task::Command::Accept(attempt.clone()))]);
    let Command::Create(mut overdue) = create(due, target(), None) else { unreachable!() };
    overdue.task.limits.queue_timeout = Some(Duration::ZERO);
    calls(&mut engine, vec![Command::Create(overdue), create(expired, target(), None)]);
    calls(&mut engine, vec![cancel(expired)]);

    let mut step = |command| calls(&mut engine, vec![command]);
    let payload = Bytes::from_static(b"text");
    let items = vec![Item { at: NOW, payload, effect: EventEffect::None }];
    let (report, _) = step(on(id(reported), task::Command::Report { attempt, first: 1, items }));
    let (ended, _) = step(Command::EndSession(EndSession {
        namespace: namespace(),
        session: worker(0),
        loss: Loss::Unclear,
        seen: None,
        message: String::new(),
    }));
    let (ticked, replies) = step(Command::tick(1));
    assert!(matches!(replies[..], [Reply::Ticked(1)]), "{replies:?}");
    let later = Timestamp(NOW.0 + 1);
    let prune = Prune { ended_before: Some(later), left_before: later, limit: 200 };
    let (pruned, _) = step(Command::Prune(prune));
    [report, ended, ticked, pruned]
}

#[test]
fn later_steps_are_independent_of_size() {
    let (small, large) = (steps(100), steps(10_000));
    assert_eq!(small, large);
    for calls in &small {
        assert!(calls.loads <= 2 && calls.writes == 1, "{calls:?}");
    }
    let [report, ended, ticked, pruned] = small;
    assert_eq!([report, ended, ticked].map(|calls| calls.tasks_written), [1, 1, 1]);
    assert_eq!(pruned.tasks_removed, 2, "the cancelled and the overdue one");
}
