//! Creation of tasks.

use bytes::Bytes;
use rota_core::TaskId;
use rota_core::task::{Command as Ask, Desired, State};
use uuid::Uuid;

use super::harness::{Harness, end_session, make, namespace, on, on_alias, to_agent};
use crate::{Command, Refused, Reply};

pub async fn new_task_is_queued_and_published(t: &mut Harness) {
    t.agent("a").await;
    let task = t.plain().await;
    assert_eq!((task.state, task.created_at, task.ready_at), (State::Queued, t.now(), Some(t.now())));
    assert_eq!(t.read(task.id).await, *task);
    assert_eq!(t.payload(task.id).await.unwrap(), format!("do {}", task.id).as_bytes());
    assert_eq!(t.steps(task.id).await, ["created", "ready"]);
    let change = t.last_change(task.id);
    assert_eq!((change.before, change.events.len(), change.dispatch.is_none()), (None, 2, true));
    assert_eq!(change.events.to_vec(), t.log(task.id).await);
    assert!(change.revision > 0);
    assert_eq!(change.route, t.route(to_agent("a")).await);
    let routes: Vec<_> = t.commits.iter().flat_map(|commit| &commit.routes).collect();
    assert_eq!(routes.len(), 1, "a route is change once, when it is new");
}

pub async fn same_key_returns_same_task(t: &mut Harness) {
    t.agent("a").await;
    let mut first = t.task();
    first.key = Some("order 7".to_owned());
    let first = t.create(first).await;
    let before = t.commits.len();
    let mut second = t.task();
    second.key = Some("order 7".to_owned());
    let unmade = second.task.id;
    let Ok(Reply::Existing(found)) = t.one(make(second)).await else { panic!("made twice") };
    assert_eq!(found, first);
    assert_eq!(t.find(unmade).await, None);
    assert_eq!(t.commits.len(), before, "nothing has changed");

    let mut elsewhere = t.task();
    elsewhere.key = Some("order 7".to_owned());
    elsewhere.task.namespace = namespace("m");
    t.create(elsewhere).await;

    // Also within one batch.
    let (mut third, mut fourth) = (t.task(), t.task());
    third.key = Some("order 8".to_owned());
    fourth.key = Some("order 8".to_owned());
    let replies = t.batch(vec![make(third), make(fourth)]).await;
    let [Ok(Reply::Created(third)), Ok(Reply::Existing(fourth))] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert_eq!(third, fourth);
    t.reopen().await;
    let mut again = t.task();
    again.key = Some("order 8".to_owned());
    assert!(matches!(t.one(make(again)).await, Ok(Reply::Existing(found)) if found.id == third.id));
}

pub async fn caller_chosen_id_is_created_once(t: &mut Harness) {
    let id = TaskId(Uuid::from_u128(0x9f00_0000_0000_4000_8000_0000_0000_0001));
    for turn in 0..3 {
        let mut create = t.task();
        create.task.id = id;
        create.foreign_id = true;
        create.task.title = format!("turn {turn}");
        match t.one(make(create)).await {
            Ok(Reply::Created(task)) if turn == 0 => assert_eq!(task.id, id),
            Ok(Reply::Existing(task)) if turn > 0 => assert_eq!(task.title, "turn 0"),
            other => panic!("{other:?}"),
        }
    }
}

pub async fn each_namespace_has_its_own_ids(t: &mut Harness) {
    let mut waits = t.task();
    let wanted = t.id();
    waits.task.dependencies = vec![on(wanted)];
    let waits = t.create(waits).await.id;
    let elsewhere = |t: &mut Harness, id| {
        let mut create = t.task();
        create.task.id = id;
        create.task.namespace = namespace("m");
        create
    };
    let (first, second) = (t.plain().await, elsewhere(t, wanted));
    let (second, third) = (t.create(second).await, elsewhere(t, first.id));
    let third = t.create(third).await;
    assert_eq!(t.read(first.id).await, *first);
    for other in [&second, &third] {
        let found = t.store.task((namespace("m"), other.id)).await.unwrap().unwrap();
        assert_eq!((found.key, found.namespace), (other.key, namespace("m")));
        assert_ne!(found.key, first.key);
    }
    assert_eq!(t.state(waits).await, State::Pending, "it waits for a task of its own namespace");
    let absent = t.ask(wanted, Ask::TICK).await.unwrap_err();
    assert_eq!(absent, Refused::NoTask(wanted));
    t.reopen().await;
    t.cancel(first.id).await;
    let other = t.store.task((namespace("m"), first.id)).await.unwrap().unwrap();
    assert_eq!(other.state, State::Pending);
}

pub async fn duplicate_id_in_one_batch(t: &mut Harness) {
    let (mut one, mut two, three) = (t.task(), t.task(), t.task());
    one.task.title = "one".to_owned();
    two.task.id = one.task.id;
    let replies = t.batch(vec![make(one), make(two), make(three)]).await;
    let [Ok(Reply::Created(_)), Ok(Reply::Existing(task)), Ok(Reply::Created(_))] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert_eq!(task.title, "one");
}

pub async fn strict_task_rejects_missing_objects(t: &mut Harness) {
    let strict = |t: &mut Harness| {
        let mut create = t.task();
        create.strict = true;
        create.key = Some("once".to_owned());
        create
    };
    let create = strict(t);
    let refused = t.one(make(create)).await.unwrap_err();
    assert_eq!(refused, Refused::Strict { what: "agent", name: "a".to_owned(), index: 0 });
    t.agent("a").await;
    let there = t.plain().await;
    let mut create = strict(t);
    create.task.dependencies = vec![on(there.id), on_alias("missing")];
    let refused = t.one(make(create)).await.unwrap_err();
    assert_eq!(refused, Refused::Strict { what: "dependency", name: "missing".to_owned(), index: 1 });
    // Nothing of it is left, not even its key.
    let mut create = strict(t);
    create.task.dependencies = vec![on(there.id)];
    assert_eq!(t.create(create).await.state, State::Pending);
}

pub async fn offer_is_assigned_in_same_commit(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut create = t.task();
    create.offer = Some(worker.clone());
    create.secrets = Some(Bytes::from_static(b"sealed"));
    let before = t.commits.len();
    let task = t.create(create).await;
    assert_eq!(t.commits.len(), before + 1);
    let assignment = task.assignment.as_ref().unwrap();
    assert_eq!((task.state, &assignment.worker), (State::Assigned, &worker.worker));
    assert_ne!(assignment.span_id, [0; 8]);
    let change = t.last_change(task.id);
    assert_eq!((change.before, change.events.len()), (None, 3));
    let dispatch = change.dispatch.unwrap();
    assert_eq!(dispatch.payload, format!("do {}", task.id).as_bytes());
    assert_eq!(dispatch.secrets.as_deref(), Some(&b"sealed"[..]));
}

pub async fn offer_of_ended_session_is_ignored(t: &mut Harness) {
    t.agent("a").await;
    let first = t.hello("w").await;
    let second = t.hello("w").await;
    let mut create = t.task();
    create.offer = Some(first);
    assert_eq!(t.create(create).await.state, State::Queued);
    t.one(end_session(&second)).await.unwrap();
    let mut create = t.task();
    create.offer = Some(second);
    assert_eq!(t.create(create).await.state, State::Queued);
}

pub async fn offer_does_not_wait(t: &mut Harness) {
    let worker = t.hello("w").await;
    let mut create = t.task();
    create.offer = Some(worker.clone());
    let task = t.create(create).await;
    assert_eq!(task.state, State::Pending);
    t.agent("a").await;
    assert_eq!(t.state(task.id).await, State::Queued);
}

pub async fn task_created_cancelled_ends(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.task.desired = Desired::Cancelled;
    create.secrets = Some(Bytes::from_static(b"sealed"));
    create.task.alias = Some("x".to_owned());
    let waiter = t.after(vec![on(create.task.id)]);
    let waiter = t.create(waiter).await;
    let task = t.create(create).await;
    assert_eq!(task.state, State::Cancelled);
    assert_eq!(t.state(waiter.id).await, State::Failed);
    let before = t.commits.len();
    assert!(matches!(t.one(Command::tick(9)).await, Ok(Reply::Ticked(0))));
    assert_eq!(t.commits.len(), before);
}
