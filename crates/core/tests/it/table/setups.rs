//! A task in every state, brought there by commands only; several for states that are not all alike.

use rota_core::failure::Class;
use rota_core::task::{Dependency, Desired, Limits, Meaning, New, OnFailure, State};

use crate::life::*;

/// A task somewhere.
#[derive(Debug)]
pub(super) struct Setup {
    /// What is special about it; empty for the plain one of its state.
    pub(super) label: &'static str,
    /// Whether it has a column in the table; all others of its kind follow it in the list.
    pub(super) column: bool,
    pub(super) life: Life,
}

/// Has lost two workers, so that there are earlier fences.
fn seasoned(new: New) -> Life {
    let mut life = Life::new(new);
    life.start().lose(EPOCH);
    life.start().lose(EPOCH);
    life
}

fn queued() -> Life {
    seasoned(plain())
}

fn running() -> Life {
    let mut life = queued();
    life.start().report(1, vec![item(Meaning::Plain)]).unwrap();
    life
}

fn asking() -> Life {
    let mut life = running();
    life.report(2, vec![asks("q1")]).unwrap();
    life
}

/// At work with nothing left to lose.
fn last_attempt() -> Life {
    let mut new = plain();
    (new.retry.max_attempts, new.retry.max_worker_losses) = (1, 2);
    let mut life = seasoned(new);
    life.start().report(1, vec![item(Meaning::Plain)]).unwrap();
    life
}

fn impatient() -> Life {
    let limits = Limits { queue_timeout: Some(secs(60)), ..plain().limits };
    Life::new(New { limits, ..plain() })
}

fn depending(dependency: Dependency) -> Life {
    Life::new(New { dependencies: vec![dependency], ..plain() })
}

/// Goes on from there.
fn then<T>(mut life: Life, step: impl FnOnce(&mut Life) -> T) -> Life {
    step(&mut life);
    life
}

fn cancelled(life: Life) -> Life {
    then(life, |life| life.want(Desired::Cancelled).state())
}

fn suspended(life: Life) -> Life {
    then(life, |life| life.want(Desired::Suspended).state())
}

fn assigned() -> Life {
    then(queued(), |life| life.assign().state())
}

fn refused_twice(life: Life) -> Life {
    then(life, |life| life.assign().reject().assign().reject().state())
}

/// All of them. One with a column comes before those that are compared with it.
pub(super) fn all() -> Vec<Setup> {
    let mut list = waiting();
    list.extend(on_workers());
    list.extend(ended());
    list
}

fn setup(state: State, column: bool, label: &'static str, life: Life) -> Setup {
    assert_eq!(life.state(), state, "{label}: {:?}", life.reasons());
    Setup { label, column, life }
}

fn waiting() -> Vec<Setup> {
    use State::{Pending, Queued};
    let no_agent = Life::new(New { agent_known: false, ..plain() });
    let later = Life::new(New { not_before: Some(START + secs(60)), ..plain() });
    let retry = then(running(), |life| life.finish(failed(Class::Agent)));
    vec![
        setup(Pending, true, "new, with a dependency", depending(after(2, OnFailure::Fail))),
        setup(Pending, false, "a dependency that may fail", depending(after(2, OnFailure::Continue))),
        setup(Pending, false, "a dependency that cancels", depending(after(2, OnFailure::Cancel))),
        setup(
            Pending,
            false,
            "a dependency that does not exist",
            depending(missing("build", OnFailure::Fail)),
        ),
        setup(Pending, false, "its agent does not exist", no_agent),
        setup(Pending, false, "a start time", later),
        setup(Pending, true, "to be tried again", retry),
        setup(Pending, false, "refused twice", refused_twice(queued())),
        setup(Pending, false, "refused twice, a queue timeout", refused_twice(impatient())),
        setup(Pending, false, "suspended", suspended(queued())),
        setup(Queued, true, "", queued()),
        setup(Queued, false, "a queue timeout", impatient()),
    ]
}

fn on_workers() -> Vec<Setup> {
    use State::{Assigned, InputRequired, Running};
    let again = then(queued(), |life| life.assign().reject().assign().state());
    let last_question = then(last_attempt(), |life| life.report(2, vec![asks("q1")]));
    vec![
        setup(Assigned, true, "", assigned()),
        setup(Assigned, false, "refused once before", again),
        setup(Assigned, false, "suspended", suspended(assigned())),
        setup(Assigned, false, "cancelled", cancelled(assigned())),
        setup(Running, true, "", running()),
        setup(Running, false, "its last attempt", last_attempt()),
        setup(Running, false, "suspended", suspended(running())),
        setup(Running, false, "cancelled", cancelled(running())),
        setup(InputRequired, true, "", asking()),
        setup(InputRequired, false, "its last attempt", last_question),
        setup(InputRequired, false, "cancelled", cancelled(asking())),
    ]
}

fn ended() -> Vec<Setup> {
    use State::{Cancelled, Failed, Succeeded};
    let overdue = then(running(), |life| life.wait(secs(3600 + 40)).state());
    vec![
        setup(Succeeded, true, "", then(running(), |life| life.finish(succeeded()))),
        setup(Failed, true, "", then(running(), |life| life.finish(failed(Class::Auth)))),
        setup(Failed, false, "overdue, its worker silent", overdue),
        setup(Cancelled, true, "", then(cancelled(running()), |life| life.finish(stopped()))),
        setup(Cancelled, false, "before it ever started", cancelled(Life::new(plain()))),
    ]
}
