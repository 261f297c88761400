//! Rows and bytes that claims load.

use bytes::Bytes;
use rota_core::RouteId;
use rota_core::target::Target;
use rota_store::engine::Engine;
use rota_store::{Claim, Command, Reply};

use super::{Counting, calls, create, hello, namespace, put_agent, worker};

fn claim(routes: std::ops::Range<u32>, slots: usize) -> Command {
    Command::Claim(Claim {
        namespace: namespace(),
        worker: worker(0),
        routes: routes.map(RouteId).collect(),
        shared: Vec::new(),
        probes: None,
        not_isolating: Default::default(),
        slots,
    })
}

#[test]
fn claim_of_many_routes_loads_one_payload() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let needing = |number: usize| create(number, Target::Capabilities([format!("c{number}")].into()), None);
    calls(&mut engine, (0..64).map(needing).collect());
    let (claimed, replies) = calls(&mut engine, vec![claim(1..65, 1)]);
    assert!(matches!(replies[..], [Reply::Claimed(1)]), "{replies:?}");
    assert_eq!((claimed.loads, claimed.rows_read, claimed.payload_bytes), (2, 64 + 1, 4));
}

#[test]
fn claims_of_a_batch_load_bounded_payloads() {
    const PAYLOAD: usize = 1 << 20;
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let large = |number: usize, route: usize| {
        let target = Target::Capabilities([format!("c{route}")].into());
        let Command::Create(mut create) = create(number, target, None) else { unreachable!() };
        create.payload = Bytes::from(vec![7; PAYLOAD]);
        Command::Create(create)
    };
    // Of one route, then of several.
    for (routes, first) in [(1..2, 0), (2..6, 100)] {
        let count = routes.len();
        calls(&mut engine, (0..100).map(|number| large(first + number, first + number % count)).collect());
        let mut left = 100;
        while left > 0 {
            let (claimed, replies) =
                calls(&mut engine, vec![claim(routes.clone(), 50), claim(routes.clone(), 50)]);
            assert!(claimed.payload_bytes <= 33 * PAYLOAD, "{claimed:?}");
            let given: usize = replies
                .iter()
                .map(|reply| match reply {
                    Reply::Claimed(given) => *given,
                    other => panic!("{other:?}"),
                })
                .sum();
            assert!(given > 0 && given <= 33, "{given}");
            left -= given;
        }
    }
}
