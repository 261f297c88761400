//! Random histories of random tasks, with a clock that also runs backwards; the invariants are checked after every
//! step.

mod invariants;
mod moves;
mod order;

use proptest::prelude::*;

use self::invariants::Observer;
use self::moves::{Move, any_move, any_task};
use crate::harness::Harness;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_command(
        new in any_task(),
        moves in prop::collection::vec(any_move(), 1..60),
    ) {
        let (mut harness, mut observer) = Observer::create(new);
        for step in moves {
            let before = harness.task.clone();
            let command = step.command(&mut harness);
            let done = harness.try_apply(command.clone());
            observer.check(&before, &command, &done, &harness);
        }
    }

    /// Whatever happened before, a correct worker can end the task.
    #[test]
    fn task_can_always_end(
        new in any_task(),
        moves in prop::collection::vec(any_move(), 0..40),
    ) {
        let (mut harness, _) = Observer::create(new);
        for step in moves {
            let command = step.command(&mut harness);
            let _ = harness.try_apply(command);
        }
        moves::remove_obstacles(&mut harness);
        if !harness.state().is_final() {
            moves::work_to_the_end(&mut harness);
        }
        prop_assert!(harness.state().is_final(), "{:?}", harness.task);
    }
}

/// Checks that the random histories reach every state.
#[test]
fn random_histories_reach_every_state() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..300 {
        let new = any_task().new_tree(&mut runner).unwrap().current();
        let moves = prop::collection::vec(any_move(), 60).new_tree(&mut runner).unwrap().current();
        let mut harness = Harness::new(new);
        for step in moves {
            let command = Move::command(&step, &mut harness);
            if harness.try_apply(command).is_ok() {
                *seen.entry(harness.state()).or_insert(0) += 1;
            }
        }
    }
    for state in rota_core::task::State::ALL {
        assert!(seen.get(&state).is_some_and(|count| *count >= 20), "{state:?}: {seen:?}");
    }
}
