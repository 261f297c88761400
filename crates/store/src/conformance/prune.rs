//! Removing what ended long ago.

use std::time::Duration;

use bytes::Bytes;
use rota_core::TaskId;
use rota_core::task::{Ending, State};
use uuid::Uuid;

use super::trial::{Trial, make, namespace, on};
use crate::{Filter, Refused};

const SECOND: Duration = Duration::from_secs(1);

async fn ended(t: &mut Trial) -> TaskId {
    let task = t.plain().await;
    t.cancel(task.id).await;
    t.later(SECOND);
    task.id
}

pub async fn only_what_ended_before(t: &mut Trial) {
    t.agent("a").await;
    let waiting = t.plain().await.id;
    let old = ended(t).await;
    let bound = t.now();
    let young = ended(t).await;
    // Made long ago and ended only now.
    t.cancel(waiting).await;
    assert_eq!(t.prune(bound, 10).await, 1);
    assert_eq!(t.store.task(old).await.unwrap(), None);
    assert_eq!(t.state(young).await, State::Cancelled);
    assert_eq!(t.state(waiting).await, State::Cancelled);
    assert_eq!(t.prune(bound, 10).await, 0);
}

pub async fn oldest_first_and_no_more(t: &mut Trial) {
    t.agent("a").await;
    let first_made = t.plain().await.id;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(ended(t).await);
    }
    t.cancel(first_made).await;
    t.later(SECOND);
    assert_eq!(t.prune(t.now(), 3).await, 3);
    let page = t.store.list(Filter { limit: 9, ..Filter::default() }).await.unwrap();
    let left: Vec<_> = page.tasks.iter().map(|task| task.id).collect();
    assert_eq!(left, [ids[3], first_made]);
    assert_eq!(t.prune(t.now(), 3).await, 2);
}

pub async fn keys_stay_and_the_rest_goes(t: &mut Trial) {
    t.agent("a").await;
    let mut create = t.task();
    create.key = Some("once".to_owned());
    create.new.alias = Some("x".to_owned());
    let id = t.create(create).await.id;
    let waiter = t.after(vec![on(id)]);
    let waiter = t.create(waiter).await.id;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.finish(&task, Ending::Succeeded(Some(Bytes::from_static(b"42")))).await.unwrap();
    t.later(SECOND);
    assert_eq!(t.prune(t.now(), 10).await, 1);
    t.reopen().await;
    assert_eq!(t.store.task(id).await.unwrap(), None);
    assert_eq!(t.store.payload(id).await.unwrap(), None);
    assert_eq!(t.store.result(id).await.unwrap(), None);
    assert_eq!(t.store.newest(&namespace("n"), "x").await.unwrap(), None);
    assert_eq!(t.log(id).await, []);
    let mut again = t.task();
    again.key = Some("once".to_owned());
    assert_eq!(t.one(make(again)).await.unwrap_err(), Refused::KeyOutlived(id));
    // Who depended on it goes on without it.
    assert_eq!(t.claim(&worker, 1).await[0].id, waiter);
    assert!(t.told(waiter).dispatch.unwrap().previous.is_empty());
}

pub async fn ids_from_outside_go_too(t: &mut Trial) {
    t.agent("a").await;
    for first in [0x00_u128, 0x50, 0xff] {
        let mut create = t.task();
        create.new.id = TaskId(Uuid::from_u128((first << 120) | 0x4000_8000_0000_0000_0000));
        create.foreign_id = true;
        let id = t.create(create).await.id;
        t.cancel(id).await;
    }
    t.later(SECOND);
    assert_eq!(t.prune(t.now(), 10).await, 3);
}

pub async fn revisions_never_repeat(t: &mut Trial) {
    t.agent("a").await;
    ended(t).await;
    let before = t.store.snapshot().await.unwrap().revision;
    assert_eq!(t.prune(t.now(), 10).await, 1);
    assert!(t.store.feed(0, 10).await.unwrap().is_empty());
    t.reopen().await;
    assert_eq!(t.store.snapshot().await.unwrap().revision, before);
    let task = t.plain().await;
    assert_eq!(t.told(task.id).revision, before + 1);
    assert_eq!(t.store.feed(before, 10).await.unwrap().len(), 1);
}
