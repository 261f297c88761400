//! Random lives of random tasks, with a clock that also falls back; after every step all that must
//! always be true is looked at.

mod invariants;
mod moves;
mod order;

use proptest::prelude::*;

use self::invariants::Witness;
use self::moves::{Move, any_move, any_task};
use crate::life::Life;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_the_invariants_hold(
        new in any_task(),
        moves in prop::collection::vec(any_move(), 1..60),
    ) {
        let (mut life, mut witness) = Witness::birth(new);
        for step in moves {
            let before = life.task.clone();
            let command = step.command(&mut life);
            let done = life.tries(command.clone());
            witness.sees(&before, &command, &done, &life);
        }
    }

    /// Whatever happened before, a task that can still be done is done by a good worker.
    #[test]
    fn a_good_end_stays_possible(
        new in any_task(),
        moves in prop::collection::vec(any_move(), 0..40),
    ) {
        let (mut life, _) = Witness::birth(new);
        for step in moves {
            let command = step.command(&mut life);
            let _ = life.tries(command);
        }
        moves::remove_obstacles(&mut life);
        if !life.state().is_final() {
            moves::work_to_the_end(&mut life);
        }
        prop_assert!(life.state().is_final(), "{:?}", life.task);
    }
}

/// The random lives must reach every state, or they prove little.
#[test]
fn random_lives_reach_every_state() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..300 {
        let new = any_task().new_tree(&mut runner).unwrap().current();
        let moves = prop::collection::vec(any_move(), 60).new_tree(&mut runner).unwrap().current();
        let mut life = Life::new(new);
        for step in moves {
            let command = Move::command(&step, &mut life);
            if life.tries(command).is_ok() {
                *seen.entry(life.state()).or_insert(0) += 1;
            }
        }
    }
    for state in rota_core::task::State::ALL {
        assert!(seen.get(&state).is_some_and(|count| *count >= 20), "{state:?}: {seen:?}");
    }
}
