//! Batches, and what is told of them.

use rota_core::task::{self, Ending, Held, State};
use rota_core::{Fence, TaskId};
use uuid::Uuid;

use super::trial::{Trial, ask, delete_agent, finish, make, put_agent, to_agent};
use crate::{Refused, Reply};

pub async fn each_is_answered_by_itself(t: &mut Trial) {
    t.agent("a").await;
    let (one, two, mut bad) = (t.task(), t.task(), t.task());
    bad.strict = true;
    bad.new.target = to_agent("nobody");
    let ids = [one.new.id, two.new.id];
    let nobody = TaskId(Uuid::from_u128(1));
    let replies = t
        .batch(vec![
            make(one),
            make(bad),
            ask(nobody, task::Command::Tick),
            delete_agent("nobody"),
            put_agent("a", "v2", Some(false)),
            ask(ids[0], task::Command::GiveInput { request: String::new(), payload: b"hm".to_vec().into() }),
            make(two),
        ])
        .await;
    assert!(matches!(replies[0], Ok(Reply::Created(_))));
    assert!(matches!(replies[1], Err(Refused::Strict { what: "agent", .. })));
    assert!(matches!(replies[2], Err(Refused::NoTask(id)) if id == nobody));
    assert!(matches!(replies[3], Err(Refused::NoAgent(_))));
    assert!(matches!(replies[4], Err(Refused::AgentExists(_))));
    assert!(matches!(replies[5], Err(Refused::Rejected(task::Rejected::State(State::Queued)))));
    assert!(matches!(replies[6], Ok(Reply::Created(_))));
    for id in ids {
        assert_eq!(t.state(id).await, State::Queued);
    }
}

pub async fn a_life_in_one_batch(t: &mut Trial) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut create = t.task();
    create.offer = Some(worker.clone());
    create.secrets = Some(b"sealed".to_vec().into());
    let id = create.new.id;
    let held = Held { by: worker, fence: Fence(1) };
    let result = Ending::Succeeded(Some(b"42".to_vec().into()));
    let before = t.commits.len();
    let replies = t
        .batch(vec![
            make(create),
            ask(id, task::Command::Accept(held.clone())),
            ask(id, finish(held, result)),
        ])
        .await;
    // Each tells the record as the commit leaves it.
    let Ok(Reply::Created(task)) = &replies[0] else { panic!("{replies:?}") };
    assert_eq!((task.state, task.attempts), (State::Succeeded, 1));
    assert_eq!(t.commits.len(), before + 1);
    let told = t.told(id);
    assert_eq!((told.before, told.events.len(), told.dispatch.is_none()), (None, 5, true));
    assert_eq!(t.steps(id).await, ["created", "ready", "assigned", "started", "succeeded"]);
    assert_eq!(t.store.result(id).await.unwrap().unwrap(), &b"42"[..]);
}

pub async fn an_empty_batch(t: &mut Trial) {
    assert!(t.batch(Vec::new()).await.is_empty());
    assert!(t.commits.is_empty());
}

pub async fn commits_come_in_order(t: &mut Trial) {
    assert!(t.store.commits().is_none(), "there is one reader");
    t.agent("a").await;
    for _ in 0..20 {
        let (one, two) = (t.task(), t.task());
        t.batch(vec![make(one), make(two)]).await;
    }
    let revisions: Vec<_> =
        t.commits.iter().flat_map(|commit| &commit.tasks).map(|change| change.revision).collect();
    assert_eq!(revisions, (1..=40).collect::<Vec<_>>());
}

pub async fn no_reader_of_commits_holds_nobody_up(t: &mut Trial) {
    // The reader that the trial took is dropped with the old store; nobody takes the new one's.
    t.without_reader().await;
    for _ in 0..600 {
        t.plain().await;
    }
}
