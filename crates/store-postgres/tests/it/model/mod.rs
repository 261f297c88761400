//! Models of ownership, checked in every interleaving within their bounds. Each rule has a mutant without it, of which a
//! counterexample must be found: the model would notice its absence. The rules are those of `docs/dev/replicas.md`.

mod commits;
mod lease;
mod mutants;
mod rules;
mod workers;

use stateright::{Checker, Model};

use self::commits::Commits;
use self::lease::Leases;
use self::mutants::{Bounds, Mutant};
use self::workers::Workers;

/// Explores all states, and returns their number.
fn explore<M>(model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + std::hash::Hash + Clone + PartialEq + Send + Sync + 'static,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send + Sync + 'static,
{
    let checker = model.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

/// Finds a shortest counterexample, and returns its steps.
fn refute<M>(model: M, property: &'static str) -> String
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + std::hash::Hash + Clone + PartialEq + Send + Sync + 'static,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send + Sync + 'static,
{
    let checker = model.checker().spawn_bfs().join();
    format!("{:?}", checker.assert_any_discovery(property).into_actions())
}

#[test]
fn commits_survive_takeovers_and_lost_history() {
    let states = explore(Commits::new(Bounds::COMMITS, None));
    println!("{states} states");
    assert!(states > 1000, "{states}");
}

#[test]
fn watchers_miss_and_repeat_nothing() {
    let states = explore(Commits::new(Bounds::WATCHES, None));
    println!("{states} states");
    assert!(states > 1000, "{states}");
}

#[test]
fn each_rule_of_commits_is_needed() {
    for mutant in Mutant::ALL {
        let model = Commits::new(mutant.bounds(), Some(mutant));
        println!("{mutant:?}: {}", refute(model, mutant.violates()));
    }
}

#[test]
fn one_replica_holds_the_lease() {
    let states = explore(Leases { counts_from_answer: false });
    assert!(states > 100, "{states}");
    println!("{}", refute(Leases { counts_from_answer: true }, lease::ONE_HOLDER));
}

#[test]
fn stale_owners_end_no_attempt() {
    let states = explore(Workers { mutant: None });
    assert!(states > 100, "{states}");
    for mutant in [workers::Mutant::SentBeforeCommit, workers::Mutant::WelcomedFromMemory] {
        println!("{mutant:?}: {}", refute(Workers { mutant: Some(mutant) }, workers::SPARED));
    }
}
