//! Random graphs of steps.

use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Stop,
    SkipDependents,
    Continue,
    Compensate,
}

/// What a step of a random graph does.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) needs: Vec<(usize, bool)>,
    pub(super) fails: bool,
    pub(super) skips: bool,
    /// Whether it is taken over from an earlier run.
    pub(super) reused: bool,
    pub(super) items: u32,
    pub(super) parallel: u32,
    pub(super) rounds: u32,
    pub(super) compensates: bool,
    /// Whether it is a fan-out, whose elements are compensated. Of those, the first one fails if it does.
    pub(super) each: bool,
    pub(super) compensation_fails: bool,
    pub(super) kind: u8,
    /// Whether it is in the group of steps, of which one runs at a time.
    pub(super) grouped: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Graph {
    pub(super) steps: Vec<Plan>,
    pub(super) finals: usize,
    pub(super) policy: Policy,
    pub(super) max_parallel: u32,
    /// Whether the workflow is in a group.
    pub(super) grouped: bool,
}

fn plan(index: usize) -> impl Strategy<Value = Plan> {
    let needs = prop::collection::btree_map(0..index.max(1), any::<bool>(), 0..=index.min(3));
    let chances = (0..10u8, 0..10u8, 0..4u32, 0..3u32, 1..3u32, any::<bool>(), 0..20u8, 0..10u8, 0..6u8);
    (needs, chances).prop_map(
        move |(needs, (fails, skips, items, parallel, rounds, compensates, broken, kind, grouped))| Plan {
            reused: skips == 1,
            needs: if index == 0 { Vec::new() } else { needs.into_iter().collect() },
            fails: fails == 0,
            skips: skips == 0,
            items,
            parallel,
            rounds,
            compensates,
            compensation_fails: broken == 0,
            kind,
            grouped: grouped % 3 == 0,
            each: grouped < 3,
        },
    )
}

pub(super) fn graph() -> impl Strategy<Value = Graph> {
    let policy = prop_oneof![
        Just(Policy::Stop),
        Just(Policy::SkipDependents),
        Just(Policy::Continue),
        Just(Policy::Compensate)
    ];
    let sizes = (1..12usize, 0..3usize, policy, 0..4u32, any::<bool>());
    sizes.prop_flat_map(|(main, finals, policy, max_parallel, grouped)| {
        let steps: Vec<_> = (0..main + finals).map(|index| plan(index).boxed()).collect();
        steps.prop_map(move |mut steps| {
            // Finally-steps need only each other.
            for step in &mut steps[main..] {
                step.needs.retain(|(need, _)| *need >= main);
            }
            Graph { steps, finals, policy, max_parallel, grouped }
        })
    })
}
