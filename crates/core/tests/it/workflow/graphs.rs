//! Random graphs of steps, some of which are workflows or merges.

use std::ops::Range;

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
    /// The workflow that it runs in place of tasks.
    pub(super) inner: Option<Box<Graph>>,
}

#[derive(Debug, Clone)]
pub(super) struct Graph {
    pub(super) steps: Vec<Plan>,
    /// Steps that are added while it runs, with indexes behind the others.
    pub(super) added: Vec<Plan>,
    pub(super) finals: usize,
    pub(super) policy: Policy,
    pub(super) max_parallel: u32,
    /// Whether the workflow is in a group.
    pub(super) grouped: bool,
}

/// Levels of workflows within the outermost one.
const DEPTH: u32 = 2;

/// Plan of a task that succeeds, without needs.
pub(super) const TASK: Plan = Plan {
    needs: Vec::new(),
    fails: false,
    skips: false,
    reused: false,
    items: 1,
    parallel: 0,
    rounds: 1,
    compensates: false,
    each: false,
    compensation_fails: false,
    kind: 9,
    grouped: false,
    inner: None,
};

fn plan(index: usize, depth: u32) -> BoxedStrategy<Plan> {
    let needs = prop::collection::btree_map(0..index.max(1), any::<bool>(), 0..=index.min(3));
    let chances = (0..10u8, 0..10u8, 0..4u32, 0..3u32, 1..3u32, any::<bool>(), 0..20u8, 0..10u8, 0..6u8);
    let inner = match depth.checked_sub(1) {
        None => Just(None).boxed(),
        Some(below) => prop_oneof![
            8 => Just(None),
            1 => sized(1..4, 0..2, below).prop_map(Some),
            1 => merge().prop_map(Some),
        ]
        .boxed(),
    };
    (needs, chances, inner)
        .prop_map(move |(needs, chances, inner)| {
            let (fails, skips, items, parallel, rounds, compensates, broken, kind, grouped) = chances;
            let is_workflow = inner.is_some();
            Plan {
                reused: skips == 1,
                needs: if index == 0 { Vec::new() } else { needs.into_iter().collect() },
                fails: fails == 0,
                skips: skips == 0,
                // A workflow has a list or rounds, and no group.
                items: if is_workflow && rounds > 1 { 1 } else { items },
                parallel,
                rounds,
                compensates,
                compensation_fails: broken == 0,
                kind,
                grouped: grouped % 3 == 0 && !is_workflow,
                each: grouped < 3 && !is_workflow,
                inner: inner.map(Box::new),
            }
        })
        .boxed()
}

/// The workflow that a merge is: without a conflict only its first step runs.
fn merge() -> impl Strategy<Value = Graph> {
    let fails = || (0..8u8).prop_map(|chance| chance == 0);
    (any::<bool>(), any::<bool>(), fails(), fails(), fails()).prop_map(
        |(conflict, person, first, second, third)| {
            let needs = |steps: &[usize]| steps.iter().map(|step| (*step, false)).collect();
            let resolve = Plan { needs: needs(&[0]), skips: !conflict, fails: second, ..TASK };
            let verify = Plan { needs: needs(&[0, 1]), skips: !conflict, fails: third, ..TASK };
            let resolve = if person { Plan { kind: 0, ..resolve } } else { resolve };
            let steps = vec![Plan { fails: first, ..TASK }, resolve, verify];
            Graph {
                steps,
                added: Vec::new(),
                finals: 0,
                policy: Policy::Stop,
                max_parallel: 0,
                grouped: false,
            }
        },
    )
}

pub(super) fn graph() -> impl Strategy<Value = Graph> {
    sized(1..12, 0..3, DEPTH)
}

fn sized(main: Range<usize>, finals: Range<usize>, depth: u32) -> BoxedStrategy<Graph> {
    let policy = prop_oneof![
        Just(Policy::Stop),
        Just(Policy::SkipDependents),
        Just(Policy::Continue),
        Just(Policy::Compensate)
    ];
    let sizes = (main, finals, 0..3usize, policy, 0..4u32, any::<bool>());
    sizes
        .prop_flat_map(move |(main, finals, added, policy, max_parallel, grouped)| {
            let steps: Vec<_> = (0..main + finals + added).map(|index| plan(index, depth)).collect();
            steps.prop_map(move |mut steps| {
                // Finally-steps need only each other, and no other step needs them.
                let all = main + finals;
                let is_finally = |index: usize| (main..all).contains(&index);
                for (index, step) in steps.iter_mut().enumerate() {
                    step.needs.retain(|(need, _)| is_finally(*need) == is_finally(index));
                }
                let added = steps.split_off(all);
                Graph { steps, added, finals, policy, max_parallel, grouped }
            })
        })
        .boxed()
}
