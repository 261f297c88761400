//! Dependencies between tasks.

use rota_core::failure::Class;
use rota_core::task::explain::Wait;
use rota_core::task::{
    Command, Dependency, DependencyKey, DependencyState, OnFailure, Rejected, State, Task,
};

use crate::harness::*;

fn with(dependencies: Vec<Dependency>) -> Harness {
    Harness::new(Task { dependencies, ..plain() })
}

fn ended(number: u128, state: State) -> Command {
    Command::DependencyEnded { id: id(number), state }
}

#[test]
fn all_dependencies_must_end() {
    let mut harness = with(vec![after(2, OnFailure::Fail), after(3, OnFailure::Fail)]);
    assert_eq!(harness.task.waits().len(), 2);
    harness.apply(ended(3, State::Succeeded));
    assert_eq!(harness.task.waits(), [Wait::Dependency { name: id(2).to_string(), id: id(2) }]);
    harness.apply(ended(9, State::Failed));
    assert_eq!(harness.state(), State::Pending);
    harness.apply(ended(2, State::Succeeded));
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn failed_dependency_applies_its_policy() {
    for how in [State::Failed, State::Cancelled] {
        for (policy, then) in [
            (OnFailure::Fail, State::Failed),
            (OnFailure::Continue, State::Queued),
            (OnFailure::Cancel, State::Cancelled),
        ] {
            let mut harness = with(vec![after(2, policy)]);
            harness.apply(ended(2, how));
            assert_eq!(harness.state(), then, "{policy:?} {how:?}");
            let class = harness.task.failure.map(|failure| failure.class);
            assert_eq!(class, (then == State::Failed).then_some(Class::Dependency));
        }
    }
}

#[test]
fn failed_dependency_ends_task_early() {
    let mut harness = with(vec![after(2, OnFailure::Fail), missing("later", OnFailure::Fail)]);
    harness.apply(ended(2, State::Failed));
    assert_eq!((harness.state(), harness.reasons().pop()), (State::Failed, Some("dependency_failed")));
}

#[test]
fn dependency_ended_before_creation() {
    for (how, then) in [(State::Succeeded, State::Queued), (State::Failed, State::Failed)] {
        let state = DependencyState::Ended(id(2), how);
        let harness = with(vec![Dependency { state, ..after(2, OnFailure::Fail) }]);
        assert_eq!(harness.state(), then);
    }
}

#[test]
fn missing_dependency_is_created_later() {
    let mut harness = with(vec![missing("build", OnFailure::Fail)]);
    assert_eq!(harness.task.waits(), [Wait::DependencyMissing("build".to_owned())]);
    let found = |alias: &str, number| Command::DependencyFound {
        key: DependencyKey::Alias(alias.to_owned()),
        id: id(number),
    };
    harness.apply(found("other", 8));
    assert_eq!(harness.task.dependencies[0].id(), None);
    harness.apply(found("build", 2));
    assert_eq!(harness.task.dependencies[0].id(), Some(id(2)));
    // The first task with the alias is the dependency.
    harness.apply(found("build", 3));
    assert_eq!(harness.task.dependencies[0].id(), Some(id(2)));
    harness.apply(ended(2, State::Succeeded));
    assert_eq!(harness.state(), State::Queued);
}

#[test]
fn repeated_dependency_end_changes_nothing() {
    let mut harness = with(vec![after(2, OnFailure::Fail), after(3, OnFailure::Fail)]);
    harness.apply(ended(2, State::Succeeded));
    harness.apply(ended(2, State::Failed));
    assert_eq!(harness.state(), State::Pending);
}

#[test]
fn cycle_fails_with_its_path() {
    let mut harness = with(vec![after(2, OnFailure::Continue)]);
    harness.apply(Command::Cycle { path: vec![id(1), id(2)], omitted: 0 });
    assert_eq!(harness.state(), State::Failed);
    let failure = harness.task.failure.unwrap();
    assert!(failure.message.contains(&format!("{} → {} → {}", id(1), id(2), id(1))), "{}", failure.message);
    let mut harness = Harness::new(plain());
    let cycle = Command::Cycle { path: vec![id(1)], omitted: 0 };
    assert_eq!(harness.try_apply(cycle).unwrap_err(), Rejected::State(State::Queued));
}
