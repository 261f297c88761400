//! What one commit of a prune looks at, and removes.

use rota_core::target::Target;
use rota_store::engine::Engine;
use rota_store::{Command, Prune, Reply};

use super::{Counting, NOW, agent, calls, cancel, create, put_agent};

#[test]
fn routes_are_looked_through_in_pieces() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, (0..600).map(put_agent).collect());
    // An agent stands behind each route but the last.
    calls(&mut engine, (0..600).map(|number| create(number, Target::Agent(agent(number)), None)).collect());
    let unused = create(600, Target::Capabilities(["x".to_owned()].into()), None);
    calls(&mut engine, vec![unused, cancel(600)]);
    let mut pruned = || {
        let prune = Command::Prune(Prune { ended_before: None, left_before: NOW, limit: 200 });
        match calls(&mut engine, vec![prune]).1[..] {
            [Reply::Pruned { count, more }] => (count, more),
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!([pruned(), pruned(), pruned()], [(0, true), (0, true), (1, false)]);
    // The next prune begins with the first route again.
    assert_eq!(pruned(), (0, true));
}
