//! Batches, and their commits.

use rota_core::task::{self, AttemptRef, Completion, State};
use rota_core::{Fence, TaskId};
use uuid::Uuid;

use super::harness::{Harness, ask, delete_agent, finish, make, put_agent, to_agent};
use crate::{Refused, Reply};

pub async fn commands_have_their_own_replies(t: &mut Harness) {
    t.agent("a").await;
    let (one, two, mut bad) = (t.task(), t.task(), t.task());
    bad.strict = true;
    bad.task.target = to_agent("missing");
    let ids = [one.task.id, two.task.id];
    let missing = TaskId(Uuid::from_u128(1));
    let replies = t
        .batch(vec![
            make(one),
            make(bad),
            ask(missing, task::Command::TICK),
            delete_agent("missing"),
            put_agent("a", "v2", Some(false)),
            ask(
                ids[0],
                task::Command::GiveInput {
                    request: String::new(),
                    payload: b"hm".to_vec().into(),
                    grant: None,
                },
            ),
            make(two),
        ])
        .await;
    assert!(matches!(replies[0], Ok(Reply::Created(_))));
    assert!(matches!(replies[1], Err(Refused::Strict { what: "agent", .. })));
    assert!(matches!(replies[2], Err(Refused::NoTask(id)) if id == missing));
    assert!(matches!(replies[3], Err(Refused::NoAgent(_))));
    assert!(matches!(replies[4], Err(Refused::AgentExists(_))));
    assert!(matches!(replies[5], Err(Refused::Rejected(task::Rejected::State(State::Queued)))));
    assert!(matches!(replies[6], Ok(Reply::Created(_))));
    for id in ids {
        assert_eq!(t.state(id).await, State::Queued);
    }
}

pub async fn whole_attempt_in_one_batch(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut create = t.task();
    create.offer = Some(worker.clone());
    create.secrets = Some(b"sealed".to_vec().into());
    let id = create.task.id;
    let attempt = AttemptRef { by: worker, fence: Fence(1) };
    let result = Completion::Succeeded(Some(b"42".to_vec().into()));
    let before = t.commits.len();
    let replies = t
        .batch(vec![
            make(create),
            ask(id, task::Command::Accept(attempt.clone())),
            ask(id, finish(attempt, result)),
        ])
        .await;
    // Each reply carries the record as the commit leaves it.
    let Ok(Reply::Created(task)) = &replies[0] else { panic!("{replies:?}") };
    assert_eq!((task.state, task.attempts), (State::Succeeded, 1));
    assert_eq!(t.commits.len(), before + 1);
    let change = t.last_change(id);
    assert_eq!((change.before, change.events.len(), change.dispatch.is_none()), (None, 5, true));
    assert_eq!(t.steps(id).await, ["created", "ready", "assigned", "started", "succeeded"]);
    assert_eq!(t.result(id).await.unwrap(), &b"42"[..]);
}

pub async fn empty_batch_has_no_replies(t: &mut Harness) {
    assert!(t.batch(Vec::new()).await.is_empty());
    assert!(t.commits.is_empty());
}

pub async fn commits_are_published_in_order(t: &mut Harness) {
    assert!(t.store.commits().is_none(), "there is one reader");
    t.agent("a").await;
    for _ in 0..20 {
        let (one, two) = (t.task(), t.task());
        t.batch(vec![make(one), make(two)]).await;
    }
    let revisions: Vec<_> =
        t.commits.iter().flat_map(|commit| &commit.tasks).map(|change| change.revision).collect();
    assert_eq!(revisions, (2..=41).collect::<Vec<_>>());
}

pub async fn missing_commit_reader_blocks_nothing(t: &mut Harness) {
    // The harness drops the reader of the old store, and takes none of the new one.
    t.without_reader().await;
    for _ in 0..600 {
        t.plain().await;
    }
}
