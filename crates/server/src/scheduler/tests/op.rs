//! Operations on the scheduler and its surroundings, and how often each is tried.

use proptest::prelude::*;
use proptest::sample::Index;

use super::world;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A worker connects, with or without the attempts that it had.
    Register {
        worker: usize,
        slots: usize,
        resume: bool,
    },
    Disconnect(usize),
    Remove(usize),
    Drain {
        worker: usize,
        only_idle: bool,
    },
    Reserve(usize),
    DropReservation(Index),
    /// The store commits a creation with its reserved slot. The answer may overtake the commit.
    Create {
        index: Index,
        answer_first: bool,
    },
    Enqueue(usize),
    CancelQueued(usize),
    Plan,
    /// The store answers a claim with up to so many tasks.
    Claim {
        index: Index,
        given: usize,
    },
    DropClaim(Index),
    ApplyCommit,
    /// A worker reports on an attempt: finishing, abandoned, ended.
    Attempt {
        worker: usize,
        index: Index,
        step: u8,
    },
    SetAdmission {
        agent: usize,
        admission: u8,
    },
    SetCapabilities {
        agent: usize,
        capable: bool,
    },
    /// The store removes a route without tasks, and reuses its id for a route that is added later. With `again`, a task
    /// adds the route under another id in the same commit.
    RemoveRoute {
        route: usize,
        again: bool,
    },
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let worker = 0..world::WORKERS;
    let route = 0..world::ROUTES;
    prop_oneof![
        4 => (worker.clone(), 1..4_usize, any::<bool>())
            .prop_map(|(worker, slots, resume)| Op::Register { worker, slots, resume }),
        1 => worker.clone().prop_map(Op::Disconnect),
        1 => worker.clone().prop_map(Op::Remove),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, only_idle)| Op::Drain { worker, only_idle }),
        6 => route.clone().prop_map(Op::Reserve),
        2 => any::<Index>().prop_map(Op::DropReservation),
        3 => (any::<Index>(), any::<bool>())
            .prop_map(|(index, answer_first)| Op::Create { index, answer_first }),
        6 => route.clone().prop_map(Op::Enqueue),
        1 => route.clone().prop_map(Op::CancelQueued),
        6 => Just(Op::Plan),
        4 => (any::<Index>(), 0..5_usize).prop_map(|(index, given)| Op::Claim { index, given }),
        1 => any::<Index>().prop_map(Op::DropClaim),
        6 => Just(Op::ApplyCommit),
        3 => (worker, any::<Index>(), 0..4_u8)
            .prop_map(|(worker, index, step)| Op::Attempt { worker, index, step }),
        2 => (0..world::AGENTS, 0..3_u8).prop_map(|(agent, admission)| Op::SetAdmission { agent, admission }),
        1 => (0..world::AGENTS, any::<bool>())
            .prop_map(|(agent, capable)| Op::SetCapabilities { agent, capable }),
        2 => (route, any::<bool>()).prop_map(|(route, again)| Op::RemoveRoute { route, again }),
    ]
}
