//! Tasks that wait for tasks.

use rota_core::failure::Class;
use rota_core::task::explain::Wait;
use rota_core::task::{Command, Dependency, DependencyKey, DependencyState, New, OnFailure, Rejected, State};

use crate::life::*;

fn with(dependencies: Vec<Dependency>) -> Life {
    Life::new(New { dependencies, ..plain() })
}

fn ended(number: u128, state: State) -> Command {
    Command::DependencyEnded { id: id(number), state }
}

#[test]
fn all_must_end_first() {
    let mut life = with(vec![after(2, OnFailure::Fail), after(3, OnFailure::Fail)]);
    assert_eq!(life.task.waits().len(), 2);
    life.does(ended(3, State::Succeeded));
    assert_eq!(life.task.waits(), [Wait::Dependency { name: id(2).to_string(), id: id(2) }]);
    life.does(ended(9, State::Failed));
    assert_eq!(life.state(), State::Pending);
    life.does(ended(2, State::Succeeded));
    assert_eq!(life.state(), State::Queued);
}

#[test]
fn what_does_not_succeed_has_its_policy() {
    for how in [State::Failed, State::Cancelled] {
        for (policy, then) in [
            (OnFailure::Fail, State::Failed),
            (OnFailure::Continue, State::Queued),
            (OnFailure::Cancel, State::Cancelled),
        ] {
            let mut life = with(vec![after(2, policy)]);
            life.does(ended(2, how));
            assert_eq!(life.state(), then, "{policy:?} {how:?}");
            let class = life.task.failure.map(|failure| failure.class);
            assert_eq!(class, (then == State::Failed).then_some(Class::Dependency));
        }
    }
}

#[test]
fn one_broken_dependency_ends_it_though_others_wait() {
    let mut life = with(vec![after(2, OnFailure::Fail), missing("later", OnFailure::Fail)]);
    life.does(ended(2, State::Failed));
    assert_eq!((life.state(), life.reasons().pop()), (State::Failed, Some("dependency_failed")));
}

#[test]
fn born_after_the_end_of_its_dependency() {
    for (how, then) in [(State::Succeeded, State::Queued), (State::Failed, State::Failed)] {
        let state = DependencyState::Ended(id(2), how);
        let life = with(vec![Dependency { state, ..after(2, OnFailure::Fail) }]);
        assert_eq!(life.state(), then);
    }
}

#[test]
fn a_dependency_may_come_later() {
    let mut life = with(vec![missing("build", OnFailure::Fail)]);
    assert_eq!(life.task.waits(), [Wait::DependencyMissing("build".to_owned())]);
    let found = |alias: &str, number| Command::DependencyFound {
        key: DependencyKey::Alias(alias.to_owned()),
        id: id(number),
    };
    life.does(found("other", 8));
    assert_eq!(life.task.dependencies[0].id(), None);
    life.does(found("build", 2));
    assert_eq!(life.task.dependencies[0].id(), Some(id(2)));
    // The first that comes is the one.
    life.does(found("build", 3));
    assert_eq!(life.task.dependencies[0].id(), Some(id(2)));
    life.does(ended(2, State::Succeeded));
    assert_eq!(life.state(), State::Queued);
}

#[test]
fn an_end_is_told_once() {
    let mut life = with(vec![after(2, OnFailure::Fail), after(3, OnFailure::Fail)]);
    life.does(ended(2, State::Succeeded));
    life.does(ended(2, State::Failed));
    assert_eq!(life.state(), State::Pending);
}

#[test]
fn a_cycle_fails_with_its_path() {
    let mut life = with(vec![after(2, OnFailure::Continue)]);
    life.does(Command::Cycle { path: vec![id(1), id(2), id(1)] });
    assert_eq!(life.state(), State::Failed);
    let failure = life.task.failure.unwrap();
    assert!(failure.message.contains(&format!("{} → {} → {}", id(1), id(2), id(1))), "{}", failure.message);
    let mut life = Life::new(plain());
    let cycle = Command::Cycle { path: vec![id(1), id(1)] };
    assert_eq!(life.tries(cycle).unwrap_err(), Rejected::State(State::Queued));
}
