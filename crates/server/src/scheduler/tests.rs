//! Properties of the scheduler alone: random sequences of what the server does to it, checked after each step against
//! a naive model that recounts everything.

mod check;
mod fixture;
mod model;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;

use self::world::{Op, World};

fn op() -> impl Strategy<Value = Op> {
    let worker = 0..world::WORKERS;
    let route = 0..world::ROUTES;
    prop_oneof![
        4 => (worker.clone(), 1..4_usize, any::<bool>())
            .prop_map(|(worker, slots, resume)| Op::Register { worker, slots, resume }),
        1 => worker.clone().prop_map(Op::Disconnect),
        1 => worker.clone().prop_map(Op::Remove),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, only_idle)| Op::Drain { worker, only_idle }),
        6 => route.clone().prop_map(Op::Reserve),
        2 => any::<prop::sample::Index>().prop_map(Op::DropReservation),
        3 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(index, answer_first)| Op::Create { index, answer_first }),
        6 => route.clone().prop_map(Op::Enqueue),
        1 => route.prop_map(Op::CancelQueued),
        6 => Just(Op::Plan),
        4 => (any::<prop::sample::Index>(), 0..5_usize).prop_map(|(index, given)| Op::Claim { index, given }),
        1 => any::<prop::sample::Index>().prop_map(Op::DropClaim),
        6 => Just(Op::ApplyCommit),
        3 => (worker, any::<prop::sample::Index>(), 0..4_u8)
            .prop_map(|(worker, index, step)| Op::Attempt { worker, index, step }),
        2 => (0..world::AGENTS, 0..3_u8).prop_map(|(agent, admission)| Op::SetAdmission { agent, admission }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn slots_match_naive_model(ops in vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
            world.check();
        }
        world.finish();
    }
}
