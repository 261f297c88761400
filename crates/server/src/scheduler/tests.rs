//! Properties of the scheduler alone: random sequences of what the server does to it, checked after each step against
//! a naive model that recounts everything.

mod check;
mod fixture;
mod isolation;
mod model;
mod op;
mod quota;
mod store;
mod work;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;

use self::op::op;
use self::world::World;

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
