//! Pruning.

use std::time::Duration;

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::{self, Completion, Desired, EventEffect, Item, State};
use rota_core::{TaskId, Timestamp, WorkerName};
use uuid::Uuid;

use super::harness::{Harness, attempt_of, delete_agent, end_session, make, namespace, on};
use crate::{Budget, Command, Filter, Prune, Refused, Reply};

const SECOND: Duration = Duration::from_secs(1);

async fn ended(t: &mut Harness) -> TaskId {
    let task = t.plain().await;
    t.cancel(task.id).await;
    t.later(SECOND);
    task.id
}

pub async fn only_tasks_ended_before_are_pruned(t: &mut Harness) {
    t.agent("a").await;
    let waiting = t.plain().await.id;
    let old = ended(t).await;
    let bound = t.now();
    let young = ended(t).await;
    // Created long ago and ended now.
    t.cancel(waiting).await;
    assert_eq!(t.prune(bound, 10).await, 1);
    assert_eq!(t.find(old).await, None);
    assert_eq!(t.state(young).await, State::Cancelled);
    assert_eq!(t.state(waiting).await, State::Cancelled);
    assert_eq!(t.prune(bound, 10).await, 0);
}

pub async fn oldest_are_pruned_first_up_to_limit(t: &mut Harness) {
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

pub async fn keys_outlive_their_tasks(t: &mut Harness) {
    t.agent("a").await;
    let mut create = t.task();
    create.key = Some("once".to_owned());
    create.task.alias = Some("x".to_owned());
    let id = t.create(create).await.id;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.finish(&task, Completion::Succeeded(Some(Bytes::from_static(b"42")))).await.unwrap();
    t.later(SECOND);
    assert_eq!(t.prune(t.now(), 10).await, 1);
    t.reopen().await;
    assert_eq!(t.find(id).await, None);
    assert_eq!(t.payload(id).await, None);
    assert_eq!(t.result(id).await, None);
    assert_eq!(t.newest("n", "x").await, None);
    assert_eq!(t.log(id).await, []);
    let mut again = t.task();
    again.key = Some("once".to_owned());
    assert_eq!(t.one(make(again)).await.unwrap_err(), Refused::KeyOutlived(id));
}

pub async fn needed_results_are_not_pruned(t: &mut Harness) {
    t.agent("a").await;
    let first = t.plain().await.id;
    let slow = t.plain().await.id;
    let waits = t.after(vec![on(first), on(slow)]);
    let waits = t.create(waits).await.id;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.finish(&task, Completion::Succeeded(Some(Bytes::from_static(b"42")))).await.unwrap();
    // Created after the end of the task that it needs, and suspended.
    let mut late = t.after(vec![on(first)]);
    late.task.desired = Desired::Suspended;
    let late = t.create(late).await.id;
    let free = ended(t).await;
    t.later(SECOND);
    t.reopen().await;
    // The needed one is the oldest, and stands in the way of none.
    assert_eq!(t.prune(t.now(), 1).await, 0);
    assert_eq!(t.prune(t.now(), 1).await, 1);
    assert_eq!(t.find(free).await, None);
    let task = t.claim(&worker, 1).await.remove(0);
    assert_eq!(task.id, slow);
    t.succeed(&task).await;
    let task = t.claim(&worker, 1).await.remove(0);
    assert_eq!(task.id, waits);
    let previous = t.last_change(waits).dispatch.unwrap().previous.clone();
    assert_eq!(previous[0].result.as_deref(), Some(&b"42"[..]));
    t.succeed(&task).await;
    t.later(SECOND);
    assert_eq!(t.prune(t.now(), 10).await, 2, "all but the one that the suspended task needs");
    t.cancel(late).await;
    t.later(SECOND);
    t.reopen().await;
    assert_eq!(t.prune(t.now(), 10).await, 2);
}

pub async fn caller_chosen_ids_are_pruned(t: &mut Harness) {
    t.agent("a").await;
    for first in [0x00_u128, 0x50, 0xff] {
        let mut create = t.task();
        create.task.id = TaskId(Uuid::from_u128((first << 120) | 0x4000_8000_0000_0000_0000));
        create.foreign_id = true;
        let id = t.create(create).await.id;
        t.cancel(id).await;
    }
    t.later(SECOND);
    assert_eq!(t.prune(t.now(), 10).await, 3);
}

pub async fn revisions_are_never_reused(t: &mut Harness) {
    t.agent("a").await;
    ended(t).await;
    let before = t.store.revision().await.unwrap();
    assert_eq!(t.prune(t.now(), 10).await, 1);
    assert!(t.store.feed(0, Budget::UNLIMITED).await.unwrap().entries.is_empty());
    t.reopen().await;
    // A write without log entries takes a revision too.
    assert_eq!(t.store.revision().await.unwrap(), before + 1);
    let task = t.plain().await;
    assert_eq!(t.last_change(task.id).revision, before + 2);
    assert_eq!(t.store.feed(before, Budget::UNLIMITED).await.unwrap().entries.len(), 1);
}

fn needing(word: &str) -> Target {
    Target::Capabilities([word.to_owned()].into())
}

/// Returns the ids of all routes.
async fn routes(t: &Harness) -> Vec<u32> {
    t.store.snapshot().await.unwrap().routes.iter().map(|(id, _)| id.0).collect()
}

pub async fn keys_are_pruned_after_their_tasks(t: &mut Harness) {
    t.agent("a").await;
    let keyed = |t: &mut Harness, key: &str| {
        let mut create = t.task();
        create.key = Some(key.to_owned());
        create
    };
    let kept = keyed(t, "kept");
    let kept = t.create(kept).await.id;
    for key in ["one", "two", "three"] {
        let create = keyed(t, key);
        let id = t.create(create).await.id;
        t.cancel(id).await;
    }
    let removed = t.later(SECOND);
    assert_eq!(t.prune(removed, 10).await, 3);
    assert_eq!(t.prune(removed, 10).await, 0, "a key is not older than its record's removal");
    let again = keyed(t, "one");
    assert!(matches!(t.one(make(again)).await, Err(Refused::KeyOutlived(_))));
    t.reopen().await;
    t.later(SECOND);
    let never = Prune { ended_before: None, left_before: t.now(), limit: 10 };
    assert!(matches!(t.one(Command::Prune(never)).await, Ok(Reply::Pruned { count: 0, .. })));
    assert_eq!(t.prune(t.now(), 2).await, 2);
    assert_eq!(t.prune(t.now(), 2).await, 1);
    for key in ["one", "two", "three"] {
        let again = keyed(t, key);
        t.create(again).await;
    }
    let again = keyed(t, "kept");
    assert!(matches!(t.one(make(again)).await, Ok(Reply::Existing(task)) if task.id == kept));
}

pub async fn ended_sessions_are_pruned(t: &mut Harness) {
    for name in ["v", "w", "x"] {
        let worker = t.hello(name).await;
        if name != "x" {
            t.one(end_session(&worker)).await.unwrap();
        }
        t.later(SECOND);
    }
    // Ended, and connected again.
    t.hello("w").await;
    t.reopen().await;
    assert_eq!(t.prune(t.now(), 10).await, 1);
    assert_eq!(t.hello("v").await.epoch.0, 1);
    assert_eq!(t.hello("w").await.epoch.0, 3);
    assert_eq!(t.hello("x").await.epoch.0, 2);
}

pub async fn unused_routes_are_pruned(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let ends = Timestamp(0);
    for target in [needing("x"), needing("code"), Target::Worker(WorkerName::new("w").unwrap())] {
        let mut create = t.task();
        create.task.target = target;
        t.create(create).await;
    }
    t.plain().await;
    assert_eq!(routes(t).await, [1, 2, 3, 4]);
    assert_eq!(t.prune(ends, 10).await, 0, "something waits on each");
    let all = [1, 2, 3, 4].map(rota_core::RouteId).to_vec();
    let given = t.claim_from(&worker, all, 4).await;
    assert_eq!(given.len(), 4);
    assert_eq!(t.prune(ends, 1).await, 1);
    assert_eq!(t.prune(ends, 5).await, 1);
    assert_eq!(t.commits.last().unwrap().removed_routes, [rota_core::RouteId(2)]);
    assert_eq!(routes(t).await, [3, 4], "an agent and a worker stand behind these");
    t.one(end_session(&worker)).await.unwrap();
    t.one(delete_agent("a")).await.unwrap();
    t.reopen().await;
    // The task was assigned, lost, and cancelled.
    let lost: Vec<_> = given.iter().map(|task| task.id).collect();
    for id in &lost {
        t.cancel(*id).await;
    }
    t.prune(ends, 10).await;
    assert_eq!(routes(t).await, [0_u32; 0]);
    let mut create = t.task();
    create.task.target = needing("x");
    let id = t.create(create).await.id;
    let number = routes(t).await;
    assert!(number[0] > 4, "a number came again: {number:?}");
    assert_eq!(t.last_change(id).route.0, number[0]);
    assert_eq!(t.store.ahead(t.last_change(id).route, i64::MAX).await.unwrap(), 1);
}

pub async fn route_used_in_same_batch_survives(t: &mut Harness) {
    let prune = || Command::Prune(Prune { ended_before: None, left_before: Timestamp(0), limit: 10 });
    let mut first = t.task();
    first.task.target = needing("x");
    let id = first.task.id;
    t.batch(vec![make(first), prune()]).await;
    assert_eq!(routes(t).await, [1]);
    t.cancel(id).await;
    let mut second = t.task();
    second.task.target = needing("x");
    let id = second.task.id;
    t.batch(vec![prune(), make(second)]).await;
    let change = t.commits.last().unwrap();
    assert_eq!((change.routes.len(), change.removed_routes.len()), (1, 1));
    assert_eq!(routes(t).await, [t.last_change(id).route.0]);
    let route = t.last_change(id).route;
    let worker = t.hello("w").await;
    assert_eq!(t.claim_from(&worker, vec![route], 1).await[0].id, id);
    assert_eq!(t.prune(Timestamp(0), 10).await, 1);
    assert_eq!(t.commits.last().unwrap().removed_routes, [route], "its first id is used no longer");
}

pub async fn large_logs_end_a_prune(t: &mut Harness) {
    end_with_large_logs(t, None).await;
    // 32 MiB, or the first that exceeds them.
    assert_eq!(t.prune(t.now(), 200).await, 3);
    assert_eq!(t.prune(t.now(), 200).await, 3);
    assert_eq!(t.prune(t.now(), 200).await, 0);
}

pub async fn large_logs_end_a_tick(t: &mut Harness) {
    let ids = end_with_large_logs(t, Some(SECOND)).await;
    let mut left = Vec::new();
    for _ in 0..3 {
        t.tick().await;
        let mut count = 0;
        for id in &ids {
            count += usize::from(t.find(*id).await.is_some());
        }
        left.push(count);
    }
    assert_eq!(left, [3, 0, 0]);
    assert_eq!(t.tick().await, 0);
}

/// Ends six tasks with 12 MiB of logs each.
async fn end_with_large_logs(t: &mut Harness, ttl: Option<std::time::Duration>) -> Vec<TaskId> {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let text = Bytes::from(vec![b'x'; 12 << 20]);
    let mut ids = Vec::new();
    for _ in 0..6 {
        let mut create = t.task();
        create.task.ttl = ttl;
        ids.push(t.create(create).await.id);
        let task = t.claim(&worker, 1).await.remove(0);
        let items = vec![Item { at: t.now(), payload: text.clone(), effect: EventEffect::None }];
        let report = task::Command::Report { attempt: attempt_of(&task), first: 1, items };
        t.ask(task.id, report).await.unwrap();
        let completion = Completion::Succeeded(None);
        let finish = task::Command::Finish {
            attempt: attempt_of(&task),
            last: 1,
            completion,
            usage: None,
            session: String::new(),
            jitter: 0.5,
        };
        t.ask(task.id, finish).await.unwrap();
    }
    t.later(SECOND);
    ids
}

pub async fn ended_task_is_removed_unless_needed(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let remove = |id| crate::Command::RemoveTask((namespace("n"), id));
    let removed = |reply: Result<Reply, Refused>| match reply {
        Ok(Reply::Pruned { count, .. }) => count,
        other => panic!("{other:?}"),
    };
    let first = t.plain().await;
    let second = t.after(vec![on(first.id)]);
    let second = t.create(second).await;
    assert_eq!(removed(t.one(remove(first.id)).await), 0, "it has not ended");
    let running = t.claim(&worker, 1).await.remove(0);
    t.succeed(&running).await;
    assert_eq!(removed(t.one(remove(first.id)).await), 0, "another task needs it");
    let running = t.claim(&worker, 1).await.remove(0);
    t.succeed(&running).await;
    let replies = t.batch(vec![remove(second.id), remove(second.id), remove(first.id)]).await;
    assert_eq!(replies[1].as_ref().unwrap_err(), &Refused::NoTask(second.id));
    t.reopen().await;
    assert_eq!((t.find(first.id).await, t.find(second.id).await), (None, None));
    assert_eq!(t.log(first.id).await, []);
}

pub async fn ended_task_is_removed_after_its_ttl(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut create = t.task();
        create.task.ttl = Some(SECOND * 10);
        ids.push(t.create(create).await.id);
    }
    let dependent = t.after(vec![on(ids[1])]);
    let dependent = t.create(dependent).await.id;
    t.later(SECOND * 20);
    assert_eq!(t.tick().await, 0, "they have not ended");
    for task in t.claim(&worker, 2).await {
        t.succeed(&task).await;
    }
    assert_eq!(t.commits.last().unwrap().next_due, Some(t.now() + SECOND * 10));
    t.later(SECOND * 9);
    assert_eq!(t.tick().await, 0);
    t.later(SECOND);
    t.reopen().await;
    let worker = t.hello("w").await;
    assert_eq!(t.tick().await, 2);
    assert_eq!(t.find(ids[0]).await, None);
    assert!(t.find(ids[1]).await.is_some(), "another task needs it");
    // It is left to the retention.
    assert_eq!(t.tick().await, 0);
    let running = t.claim(&worker, 1).await.remove(0);
    assert_eq!(running.id, dependent);
    t.succeed(&running).await;
    t.later(SECOND);
    assert_eq!(t.prune(t.now(), 10).await, 2);
}
