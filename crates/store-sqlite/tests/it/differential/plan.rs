//! Strategies for plans over few names, so that commands interact.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;

use super::workflows::{self, WorkflowOp};

/// Ids of tasks that plans create.
pub(super) const SLOTS: u8 = 9;
/// All ids of tasks: those of steps follow.
pub(super) const TASK_SLOTS: u8 = 21;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Batch {
        ops: Vec<Op>,
        wait: i64,
        /// Calls of the transaction that succeed, and how many fail then.
        fail: Option<(u32, u32)>,
    },
    /// Time passes, and every deadline is applied.
    Settle {
        wait: i64,
    },
    Reopen,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create(Box<Make>),
    Ask {
        slot: u8,
        namespace: u8,
        ask: Ask,
    },
    Claim {
        namespace: u8,
        worker: u8,
        old: bool,
        routes: Vec<u8>,
        slots: usize,
    },
    Tick {
        limit: usize,
    },
    Open {
        namespace: u8,
        worker: u8,
        agent: u8,
        instance: u8,
        names: Vec<(u8, u8)>,
        last: Option<bool>,
        takes_name: bool,
    },
    End {
        namespace: u8,
        worker: u8,
        old: bool,
    },
    Drain {
        namespace: u8,
        worker: u8,
        instance: u8,
    },
    PutAgent {
        namespace: u8,
        agent: u8,
        payload: u8,
        must_exist: Option<bool>,
    },
    DeleteAgent {
        namespace: u8,
        agent: u8,
    },
    /// With the version, counted back, that is expected; none of any.
    PutDocument {
        namespace: u8,
        name: u8,
        payload: u8,
        expected: Option<u8>,
    },
    DeleteDocument {
        namespace: u8,
        name: u8,
        expected: Option<u8>,
    },
    Prune {
        seconds: i64,
        limit: usize,
    },
    Workflow(WorkflowOp),
}

#[derive(Debug, Clone)]
pub(crate) struct Make {
    pub(super) slot: u8,
    pub(super) namespace: u8,
    pub(super) target: u8,
    pub(super) priority: i32,
    /// By alias or by id, its number, and the policy.
    pub(super) dependencies: Vec<(bool, u8, u8)>,
    pub(super) alias: Option<u8>,
    pub(super) key: Option<u8>,
    pub(super) strict: bool,
    pub(super) offer: Option<u8>,
    pub(super) secrets: bool,
    pub(super) not_before: Option<i64>,
    pub(super) queue_timeout: Option<u64>,
    pub(super) desired: u8,
    pub(super) attempts: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Accept { fence: u8 },
    Reject { fence: u8 },
    Report { fence: u8, gap: u8, items: Vec<u8> },
    Finish { fence: u8, completion: u8 },
    Update { priority: Option<i32>, desired: Option<u8>, label: Option<u8> },
    Input { answers: bool },
    Tick,
}

/// Worker of a session: its namespace, number, agent and process, and whether it may take another agent's name.
fn open() -> impl Strategy<Value = (u8, u8, bool, u8, bool)> {
    let (other_agent, takes_name) = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.7));
    (0..8_u8, 0..3_u8, other_agent, 0..2_u8, takes_name)
}

fn fence() -> impl Strategy<Value = u8> {
    prop_oneof![8 => Just(0_u8), 2 => Just(1), 1 => Just(2), 1 => Just(3)]
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => fence().prop_map(|fence| Ask::Accept { fence }),
        1 => fence().prop_map(|fence| Ask::Reject { fence }),
        4 => (fence(), prop_oneof![6 => Just(0_u8), 1 => 1..3_u8], vec(0..5_u8, 0..4))
            .prop_map(|(fence, gap, items)| Ask::Report { fence, gap, items }),
        5 => (fence(), 0..6_u8).prop_map(|(fence, completion)| Ask::Finish { fence, completion }),
        3 => (of(0..11), weighted(0.4, 0..3_u8), of(0..3_u8))
            .prop_map(|(priority, desired, label)| Ask::Update { priority, desired, label }),
        1 => any::<bool>().prop_map(|answers| Ask::Input { answers }),
        1 => Just(Ask::Tick),
    ]
}

fn make() -> impl Strategy<Value = Make> {
    let who = (0..SLOTS, 0..8_u8, 0..5_u8, 0..11);
    let links =
        (vec((any::<bool>(), 0..SLOTS, 0..3_u8), 0..3), weighted(0.4, 0..3_u8), weighted(0.3, 0..4_u8));
    let flags = (weighted(0.1, Just(())), any::<bool>(), weighted(0.4, 0..3_u8), any::<bool>());
    let times = (weighted(0.2, 0..20_i64), weighted(0.3, 1..30_u64), 0..10_u8, 1..4_u32);
    (who, links, flags, times).prop_map(|(who, links, flags, times)| Make {
        slot: who.0,
        namespace: who.1,
        target: who.2,
        priority: who.3,
        dependencies: links.0,
        alias: links.1,
        key: links.2,
        strict: flags.0.is_some(),
        offer: flags.2,
        secrets: flags.3,
        not_before: times.0,
        queue_timeout: times.1,
        desired: times.2,
        attempts: times.3,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => make().prop_map(|make| Op::Create(Box::new(make))),
        18 => (0..TASK_SLOTS, 0..20_u8, ask()).prop_map(|(slot, namespace, ask)| Op::Ask { slot, namespace, ask }),
        5 => (0..8_u8, 0..3_u8, weighted(0.1, Just(())), vec(0..8_u8, 0..4), 0..4_usize).prop_map(
            |(namespace, worker, old, routes, slots)| {
                Op::Claim { namespace, worker, old: old.is_some(), routes, slots }
            }
        ),
        2 => prop_oneof![Just(100_usize), 0..3_usize].prop_map(|limit| Op::Tick { limit }),
        4 => (open(), vec((0..SLOTS, fence()), 0..4), of(any::<bool>())).prop_map(
            |((namespace, worker, agent, instance, takes_name), names, last)| {
                Op::Open { namespace, worker, agent: agent.into(), instance, names, last, takes_name }
            }
        ),
        1 => (0..8_u8, 0..3_u8, weighted(0.2, Just(()))).prop_map(|(namespace, worker, old)| {
            Op::End { namespace, worker, old: old.is_some() }
        }),
        1 => (0..8_u8, 0..3_u8, 0..2_u8)
            .prop_map(|(namespace, worker, instance)| Op::Drain { namespace, worker, instance }),
        3 => (0..8_u8, 0..2_u8, 0..3_u8, weighted(0.3, any::<bool>())).prop_map(
            |(namespace, agent, payload, must_exist)| Op::PutAgent { namespace, agent, payload, must_exist }
        ),
        1 => (0..8_u8, 0..2_u8).prop_map(|(namespace, agent)| Op::DeleteAgent { namespace, agent }),
        3 => (0..8_u8, 0..3_u8, 0..3_u8, of(0..3_u8)).prop_map(|(namespace, name, payload, expected)| {
            Op::PutDocument { namespace, name, payload, expected }
        }),
        1 => (0..8_u8, 0..3_u8, weighted(0.3, 0..2_u8)).prop_map(|(namespace, name, expected)| {
            Op::DeleteDocument { namespace, name, expected }
        }),
        2 => (0..60_i64, 0..4_usize).prop_map(|(seconds, limit)| Op::Prune { seconds, limit }),
        12 => workflows::op().prop_map(Op::Workflow),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    // Sometimes backwards, as clocks move; mostly milliseconds, often seconds, rarely an hour.
    let wait = || {
        prop_oneof![
            1 => Just(-2_000_000_i64),
            6 => 0..2000_i64,
            4 => 0..20_000_000_i64,
            1 => Just(3_700_000_000_i64),
        ]
    };
    prop_oneof![
        12 => (vec(op(), 1..12), wait(), weighted(0.2, (0..60_u32, 1..4_u32)))
            .prop_map(|(ops, wait, fail)| Step::Batch { ops, wait, fail }),
        2 => wait().prop_map(|wait| Step::Settle { wait }),
        1 => Just(Step::Reopen),
    ]
}
