//! Whose bounds count: the task's own, then its agent's, then the built-in ones; in any order of arrival.

use std::time::Duration;

use rota_core::failure::Class;
use rota_core::task::{CANCEL_GRACE, Command, Limits, New, State, TIMEOUT, Task};

use crate::life::*;

const AGENTS: Limits =
    Limits { timeout: Some(secs(100)), queue_timeout: Some(secs(60)), cancel_grace: Some(secs(3)) };

fn given(to: &str, defaults: Limits) -> Command {
    Command::Assign { to: worker(to, EPOCH), span_id: [7; 8], defaults }
}

#[test]
fn the_tasks_own_word_goes_over_its_agents() {
    let mut life = Life::new(New { agent_known: false, ..plain() });
    let task = &life.task;
    assert_eq!((task.timeout(), task.queue_timeout(), task.cancel_grace()), (TIMEOUT, None, CANCEL_GRACE));
    life.does(appeared(AGENTS));
    let task = &life.task;
    assert_eq!(
        (task.timeout(), task.queue_timeout(), task.cancel_grace()),
        (secs(100), Some(secs(60)), secs(3))
    );

    let limits = Limits { timeout: Some(secs(7)), queue_timeout: Some(secs(8)), cancel_grace: Some(secs(9)) };
    let mut life = Life::new(New { limits, ..plain() });
    life.does(appeared(AGENTS));
    life.does(given("w1", AGENTS));
    let task = &life.task;
    assert_eq!(
        (task.timeout(), task.queue_timeout(), task.cancel_grace()),
        (secs(7), Some(secs(8)), secs(9))
    );
}

#[test]
fn the_queue_timeout_of_an_agent_that_comes_later_runs_from_the_ready_time() {
    let mut life = Life::new(New { agent_known: false, ..plain() });
    life.wait(secs(1000)).does(appeared(AGENTS));
    assert_eq!((life.state(), life.task.ready_at), (State::Queued, Some(START + secs(1000))));
    life.wait(secs(59));
    assert_eq!(life.state(), State::Queued);
    life.wait(secs(1));
    assert_eq!(life.task.failure.as_ref().unwrap().class, Class::QueueTimeout);
}

#[test]
fn whoever_takes_it_brings_its_agents_bounds() {
    let mut life = Life::new(New { target: capabilities(), ..plain() });
    life.does(given("w1", AGENTS));
    let bounds = |task: &Task| (task.timeout(), task.queue_timeout(), task.cancel_grace());
    assert_eq!(bounds(&life.task), (secs(100), None, secs(3)), "it waits for anybody, not for this agent");
    life.reject();
    assert_eq!(life.state(), State::Queued);
    life.wait(secs(61));
    life.does(given("w2", Limits::default()));
    assert_eq!(bounds(&life.task), (TIMEOUT, None, CANCEL_GRACE));
    // An attempt keeps what it was sent with.
    life.accept().does(appeared(AGENTS));
    assert_eq!(bounds(&life.task), (TIMEOUT, None, CANCEL_GRACE));
}

#[test]
fn bounds_from_when_they_were_always_whole_are_still_read() {
    #[derive(serde::Serialize)]
    struct Old {
        timeout: Duration,
        queue_timeout: Option<Duration>,
        cancel_grace: Duration,
    }
    let old = Old { timeout: secs(5), queue_timeout: None, cancel_grace: secs(6) };
    let packed = rmp_serde::to_vec_named(&old).unwrap();
    let read = Limits { timeout: Some(secs(5)), queue_timeout: None, cancel_grace: Some(secs(6)) };
    assert_eq!(rmp_serde::from_slice::<Limits>(&packed).unwrap(), read);
}
