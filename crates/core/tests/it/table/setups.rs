//! A task in every state, brought there by commands only; several for states with variants.

use rota_core::failure::Class;
use rota_core::task::{Command, Dependency, Desired, EventEffect, Limits, OnFailure, State, Task};

use crate::harness::*;

/// A task in some state.
#[derive(Debug)]
pub(super) struct Setup {
    /// What distinguishes it; empty for the plain task of its state.
    pub(super) label: &'static str,
    /// Whether it has a column in the table; variants follow their column in the list.
    pub(super) column: bool,
    pub(super) harness: Harness,
}

/// Loses two workers first, so that there are earlier fences.
fn seasoned(new: Task) -> Harness {
    let mut harness = Harness::new(new);
    harness.start().lose(EPOCH);
    harness.start().lose(EPOCH);
    harness
}

fn queued() -> Harness {
    seasoned(plain())
}

fn running() -> Harness {
    let mut harness = queued();
    harness.start().report(1, vec![item(EventEffect::None)]).unwrap();
    harness
}

fn asking_without_checkpoint() -> Harness {
    let mut harness = running();
    harness.report(2, vec![request("q1")]).unwrap();
    harness
}

fn asking() -> Harness {
    then(asking_without_checkpoint(), |harness| harness.keep_checkpoint().state())
}

fn released() -> Harness {
    then(asking(), |harness| {
        let attempt = harness.live();
        harness.apply(Command::Release { attempt, requests: vec!["q1".to_owned()] })
    })
}

/// Runs with every retry used up.
fn last_attempt() -> Harness {
    let mut new = plain();
    (new.retry.max_attempts, new.retry.max_worker_losses) = (1, 2);
    let mut harness = seasoned(new);
    harness.start().report(1, vec![item(EventEffect::None)]).unwrap();
    harness
}

fn impatient() -> Harness {
    let limits = Limits { queue_timeout: Some(secs(60)), ..plain().limits };
    Harness::new(Task { limits, ..plain() })
}

fn depending(dependency: Dependency) -> Harness {
    Harness::new(Task { dependencies: vec![dependency], ..plain() })
}

/// Continues from the given task.
fn then<T>(mut harness: Harness, step: impl FnOnce(&mut Harness) -> T) -> Harness {
    step(&mut harness);
    harness
}

fn cancelled(harness: Harness) -> Harness {
    then(harness, |harness| harness.update(Desired::Cancelled).state())
}

fn suspended(harness: Harness) -> Harness {
    then(harness, |harness| harness.update(Desired::Suspended).state())
}

fn assigned() -> Harness {
    then(queued(), |harness| harness.assign().state())
}

fn rejected_twice(harness: Harness) -> Harness {
    then(harness, |harness| harness.assign().reject().assign().reject().state())
}

/// Returns all setups. One with a column precedes its variants.
pub(super) fn all() -> Vec<Setup> {
    let mut list = waiting();
    list.extend(on_workers());
    list.extend(ended());
    list
}

fn setup(state: State, column: bool, label: &'static str, harness: Harness) -> Setup {
    assert_eq!(harness.state(), state, "{label}: {:?}", harness.reasons());
    Setup { label, column, harness }
}

fn waiting() -> Vec<Setup> {
    use State::{Pending, Queued};
    let no_agent = Harness::new(Task { agent_known: false, ..plain() });
    let later = Harness::new(Task { not_before: Some(START + secs(60)), ..plain() });
    let retry = then(running(), |harness| harness.finish(failed(Class::Agent)));
    vec![
        setup(Pending, true, "new, with a dependency", depending(after(2, OnFailure::Fail))),
        setup(Pending, false, "a dependency that may fail", depending(after(2, OnFailure::Continue))),
        setup(Pending, false, "a dependency that cancels", depending(after(2, OnFailure::Cancel))),
        setup(Pending, false, "a missing dependency", depending(missing("build", OnFailure::Fail))),
        setup(Pending, false, "a missing agent", no_agent),
        setup(Pending, false, "a start time", later),
        setup(Pending, true, "waiting for a retry", retry),
        setup(Pending, false, "rejected twice", rejected_twice(queued())),
        setup(Pending, false, "rejected twice, with a queue timeout", rejected_twice(impatient())),
        setup(Pending, false, "suspended", suspended(queued())),
        setup(Pending, true, "waiting for an answer", released()),
        setup(Queued, true, "", queued()),
        setup(Queued, false, "a queue timeout", impatient()),
    ]
}

fn on_workers() -> Vec<Setup> {
    use State::{Assigned, InputRequired, Running};
    let again = then(queued(), |harness| harness.assign().reject().assign().state());
    let last_question = then(last_attempt(), |harness| harness.report(2, vec![request("q1")]));
    vec![
        setup(Assigned, true, "", assigned()),
        setup(Assigned, false, "rejected once before", again),
        setup(Assigned, false, "suspended", suspended(assigned())),
        setup(Assigned, false, "cancelled", cancelled(assigned())),
        setup(Running, true, "", running()),
        setup(Running, false, "the last attempt", last_attempt()),
        setup(Running, false, "suspended", suspended(running())),
        setup(Running, false, "cancelled", cancelled(running())),
        setup(InputRequired, true, "", asking()),
        setup(InputRequired, false, "without a checkpoint", asking_without_checkpoint()),
        setup(InputRequired, false, "the last attempt", last_question),
        setup(InputRequired, false, "cancelled", cancelled(asking())),
    ]
}

fn ended() -> Vec<Setup> {
    use State::{Cancelled, Failed, Succeeded};
    let overdue = then(running(), |harness| harness.wait(secs(3600 + 40)).state());
    vec![
        setup(Succeeded, true, "", then(running(), |harness| harness.finish(succeeded()))),
        setup(Failed, true, "", then(running(), |harness| harness.finish(failed(Class::Refusal)))),
        setup(Failed, false, "timed out, its worker silent", overdue),
        setup(Cancelled, true, "", then(cancelled(running()), |harness| harness.finish(stopped()))),
        setup(Cancelled, false, "before its start", cancelled(Harness::new(plain()))),
    ]
}
