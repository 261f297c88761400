//! Reads: lists, logs, the feed, statistics and snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rota_core::failure::{Class, Failure};
use rota_core::rank::Priority;
use rota_core::target::Target;
use rota_core::task::{Body, Command, Completion, EventEffect, Item, State};
use rota_core::usage::Usage;
use rota_core::{AgentName, TaskId, TaskKey, WorkerName};

use super::harness::{Harness, attempt_of, namespace, to_agent};
use crate::{Budget, Filter, StoreStats, TaskBody};

pub async fn list_filters_match(t: &mut Harness) {
    t.agent("a").await;
    let mut ids = Vec::new();
    for index in 0..4 {
        let mut create = t.task();
        match index {
            0 => create.task.labels = BTreeMap::from([("team".to_owned(), "x".to_owned())]),
            1 => create.task.owner = "you".to_owned(),
            2 => {
                create.task.alias = Some("build".to_owned());
                create.task.parent = Some(ids[0]);
            }
            _ => {
                create.task.namespace = namespace("m");
                create.task.target = Target::Capabilities(["code".to_owned()].into());
            }
        }
        ids.push(t.create(create).await.id);
        t.later(Duration::from_secs(1));
    }
    t.cancel(ids[1]).await;
    let start = t.read(ids[0]).await.created_at;
    let at = |seconds| Some(start + Duration::from_secs(seconds));
    let any = || Filter { limit: 10, ..Filter::default() };
    let team = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
    let other = BTreeMap::from([("team".to_owned(), "y".to_owned())]);
    let all = t.store.list(any()).await.unwrap().tasks;
    let keys: Vec<_> = all.iter().rev().map(|task| task.key).collect();
    let (some, none) = (vec![keys[0], keys[2], keys[3]], Some(Vec::new()));
    let expected: [(Filter, &[usize]); 17] = [
        (any(), &[3, 2, 1, 0]),
        (Filter { namespace: Some(namespace("n")), ..any() }, &[2, 1, 0]),
        (Filter { namespace: Some(namespace("m")), ..any() }, &[3]),
        (Filter { states: vec![State::Queued], ..any() }, &[3, 2, 0]),
        (Filter { states: vec![State::Cancelled, State::Failed], ..any() }, &[1]),
        (Filter { agent: Some(AgentName::new("a").unwrap()), ..any() }, &[2, 1, 0]),
        (Filter { labels: team, ..any() }, &[0]),
        (Filter { labels: other, ..any() }, &[]),
        (Filter { owner: Some("you".to_owned()), ..any() }, &[1]),
        (Filter { alias: Some("build".to_owned()), ..any() }, &[2]),
        (Filter { parent: Some(ids[0]), ..any() }, &[2]),
        (Filter { created_after: at(1), created_before: at(3), ..any() }, &[2, 1]),
        (Filter { before: Some(keys[2]), limit: 1, ..any() }, &[1]),
        (Filter { keys: Some(some.clone()), ..any() }, &[3, 2, 0]),
        (Filter { keys: Some(some.clone()), before: Some(keys[3]), limit: 1, ..any() }, &[2]),
        (Filter { keys: Some(some), namespace: Some(namespace("m")), ..any() }, &[3]),
        (Filter { keys: none, ..any() }, &[]),
    ];
    for (filter, wanted) in expected {
        let page = t.store.list(filter.clone()).await.unwrap();
        let found: Vec<_> = page.tasks.iter().map(|task| task.id).collect();
        assert_eq!(found, wanted.iter().map(|index| ids[*index]).collect::<Vec<_>>(), "{filter:?}");
    }
    // Each end of the ranges, and tasks that have not ended.
    let ended = t.read(ids[1]).await.ended_at;
    let later = ended.map(|at| at + Duration::from_micros(1));
    let priority = Priority::new;
    let expected: [(Filter, &[usize]); 8] = [
        (Filter { ended_after: ended, ..any() }, &[1]),
        (Filter { ended_after: later, ..any() }, &[]),
        (Filter { ended_before: later, ..any() }, &[1]),
        (Filter { ended_before: ended, ..any() }, &[]),
        (Filter { min_priority: priority(5), max_priority: priority(5), ..any() }, &[3, 2, 1, 0]),
        (Filter { min_priority: priority(6), ..any() }, &[]),
        (Filter { max_priority: priority(4), ..any() }, &[]),
        (Filter { min_attempts: 1, ..any() }, &[]),
    ];
    for (filter, wanted) in expected {
        assert_eq!(listed(t, &filter).await, wanted.iter().map(|index| ids[*index]).collect::<Vec<_>>());
    }
    // A question of an attempt, until it is answered.
    let worker = t.hello("w").await;
    let asking = t.claim(&worker, 1).await.remove(0);
    let effect = EventEffect::InputRequested { request: "q".to_owned(), payload: Bytes::from_static(b"?") };
    let items = vec![Item { at: t.now(), payload: Bytes::from_static(b"?"), effect }];
    t.ask(asking.id, Command::Report { attempt: attempt_of(&asking), first: 1, items }).await.unwrap();
    let open = Filter { open_questions: true, ..any() };
    let found = |page: crate::Page| page.tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(found(t.store.list(open.clone()).await.unwrap()), [asking.id]);
    let of_state = Filter { states: vec![State::Pending, State::InputRequired], ..open.clone() };
    assert_eq!(found(t.store.list(of_state).await.unwrap()), [asking.id]);
    let effect = EventEffect::InputResolved("q".to_owned());
    let items = vec![Item { at: t.now(), payload: Bytes::from_static(b"!"), effect }];
    t.ask(asking.id, Command::Report { attempt: attempt_of(&asking), first: 2, items }).await.unwrap();
    assert_eq!(found(t.store.list(open).await.unwrap()), []);
}

async fn listed(t: &Harness, filter: &Filter) -> Vec<TaskId> {
    t.store.list(filter.clone()).await.unwrap().tasks.iter().map(|task| task.id).collect()
}

pub async fn list_filters_match_attempts(t: &mut Harness) {
    t.agent("a").await;
    let (first, second) = (t.plain().await.id, t.plain().await.id);
    let (one, two) = (t.hello("one").await, t.hello("two").await);
    let attempt = t.claim(&one, 1).await.remove(0);
    assert_eq!(attempt.id, first);
    let failure = Failure::new(Class::Refusal, "no");
    t.finish(&attempt, Completion::Failed(failure)).await.unwrap();
    let attempt = t.claim(&two, 1).await.remove(0);
    assert_eq!(attempt.id, second);
    let usage = Usage { cost_micro_usd: 1_500_000, ..Usage::default() };
    let items = vec![Item { at: t.now(), payload: Bytes::new(), effect: EventEffect::Usage(usage) }];
    t.ask(attempt.id, Command::Report { attempt: attempt_of(&attempt), first: 1, items }).await.unwrap();
    let any = || Filter { limit: 10, ..Filter::default() };
    let worker = |name| WorkerName::new(name).ok();
    let letters = || Filter { dead_letters: Some("replayed"), ..any() };
    let expected: [(Filter, &[TaskId]); 11] = [
        (any(), &[second, first]),
        (letters(), &[first]),
        (Filter { failures: vec![Class::Refusal, Class::Crash], ..any() }, &[first]),
        (Filter { failures: vec![Class::Crash], ..any() }, &[]),
        (Filter { worker: worker("one"), ..any() }, &[first]),
        (Filter { worker: worker("two"), ..any() }, &[second]),
        (Filter { worker: worker("three"), ..any() }, &[]),
        (Filter { min_attempts: 1, ..any() }, &[second, first]),
        (Filter { min_attempts: 2, ..any() }, &[]),
        (Filter { min_cost_micro_usd: Some(1_500_000), ..any() }, &[second]),
        (Filter { min_cost_micro_usd: Some(1_500_001), ..any() }, &[]),
    ];
    for (filter, wanted) in expected {
        assert_eq!(listed(t, &filter).await, wanted, "{filter:?}");
    }
    let labels = Some(BTreeMap::from([("replayed".to_owned(), "x".to_owned())]));
    let replay = Command::Update { priority: None, labels, desired: None, reason: String::new() };
    t.ask(first, replay).await.unwrap();
    assert_eq!(listed(t, &letters()).await, []);
}

pub async fn list_pages_are_complete(t: &mut Harness) {
    let mut ids = Vec::new();
    for index in 0..10 {
        let mut create = t.task();
        create.task.owner = if index % 3 == 0 { "me".to_owned() } else { "you".to_owned() };
        ids.push(t.create(create).await.id);
    }
    for (limit, owner) in [(3, None), (5, None), (10, None), (11, None), (2, Some("you".to_owned()))] {
        let mut filter = Filter { limit, owner, ..Filter::default() };
        let mut found = Vec::new();
        loop {
            let page = t.store.list(filter.clone()).await.unwrap();
            assert!(page.tasks.len() <= limit);
            found.extend(page.tasks.iter().map(|task| task.id));
            match page.next {
                Some(next) => filter.before = Some(next),
                None => break,
            }
        }
        let wanted = ids.iter().enumerate().rev().filter(|(i, _)| filter.owner.is_none() || i % 3 != 0);
        assert_eq!(found, wanted.map(|(_, id)| *id).collect::<Vec<_>>(), "pages of {limit}");
    }
}

pub async fn log_reads_from_any_position(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    for (index, size) in [1_u64, 3, 2, 5].into_iter().enumerate() {
        let item = Item { at: t.now(), payload: Bytes::from(vec![7; 10]), effect: EventEffect::None };
        let items = (0..size).map(|_| item.clone()).collect();
        let first = 1 + [1, 3, 2, 5][..index].iter().sum::<u64>();
        t.ask(task.id, Command::Report { attempt: attempt_of(&task), first, items }).await.unwrap();
    }
    let all = t.log(task.id).await;
    assert_eq!(all.len(), 15);
    for after in 0..=16 {
        let rest = t.store.events(task.key, after, Budget::UNLIMITED).await.unwrap();
        assert_eq!(rest[..], all[usize::try_from(after).unwrap().min(all.len())..], "after {after}");
        let two = Budget { entries: 2, ..Budget::UNLIMITED };
        let few = t.store.events(task.key, after, two).await.unwrap();
        assert_eq!(few[..], rest[..rest.len().min(2)]);
    }
    assert_eq!(t.store.events(task.key, u64::MAX, Budget::UNLIMITED).await.unwrap(), []);
}

pub async fn feed_has_all_logs(t: &mut Harness) {
    t.agent("a").await;
    for _ in 0..3 {
        t.plain().await;
    }
    let worker = t.hello("w").await;
    for task in t.claim(&worker, 2).await {
        t.succeed(&task).await;
    }
    let changes: Vec<_> = t.commits.iter().flat_map(|commit| &commit.tasks).collect();
    let all = t.store.feed(0, Budget::UNLIMITED).await.unwrap().entries;
    assert_eq!(all.len(), changes.len());
    for (entry, change) in all.iter().zip(&changes) {
        let task = entry.task.as_ref().unwrap();
        assert_eq!((entry.revision, task.id), (change.revision, change.task.id));
        assert_eq!(*task, t.read(task.id).await, "as it is now");
        assert_eq!(entry.events[..], change.events[..]);
    }
    assert!(all.windows(2).all(|two| two[0].revision < two[1].revision));
    assert_eq!(t.store.revision().await.unwrap(), all.last().unwrap().revision);
    let mut after = 0;
    let one = Budget { entries: 1, ..Budget::UNLIMITED };
    for entry in &all {
        let next = t.store.feed(after, one).await.unwrap();
        assert_eq!((next.entries.len(), next.entries[0].revision), (1, entry.revision));
        assert!(next.more || entry.revision == all.last().unwrap().revision);
        after = entry.revision;
    }
    assert!(t.store.feed(after, one).await.unwrap().entries.is_empty());
}

pub async fn log_pages_are_bounded_by_bytes(t: &mut Harness) {
    const SIZE: usize = 1000;
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    let item = Item { at: t.now(), payload: Bytes::from(vec![7; SIZE]), effect: EventEffect::None };
    for first in [1, 9, 17] {
        // More than a page holds, in one commit.
        let items = vec![item.clone(); 8];
        t.ask(task.id, Command::Report { attempt: attempt_of(&task), first, items }).await.unwrap();
    }
    let all = t.log(task.id).await;
    // Each page takes the entry that exceeds the bound, hence at least one.
    for (bytes, largest) in [(0, 1), (1, 1), (SIZE, 1), (SIZE * 5 / 2, 3), (usize::MAX, all.len())] {
        let budget = Budget { bytes, ..Budget::UNLIMITED };
        let mut read = Vec::new();
        loop {
            let page = t.store.events(task.key, read.len() as u64, budget).await.unwrap();
            if page.is_empty() {
                break;
            }
            let reports = page.iter().filter(|event| matches!(event.body, Body::Report(_))).count();
            assert!(reports <= largest, "{reports} reports in {bytes} bytes");
            read.extend(page);
        }
        assert_eq!(read, all);
    }
    let all = t.store.feed(0, Budget::UNLIMITED).await.unwrap().entries;
    let two_reports = Budget { bytes: SIZE * 10, ..Budget::UNLIMITED };
    for (budget, largest) in [(Budget { bytes: 1, ..two_reports }, 1), (two_reports, 2)] {
        let (mut after, mut read) = (0, 0);
        loop {
            let page = t.store.feed(after, budget).await.unwrap().entries;
            let Some(last) = page.last() else { break };
            assert!(page.iter().filter(|entry| entry.events.len() >= 8).count() <= largest);
            (after, read) = (last.revision, read + page.len());
        }
        assert_eq!((after, read), (all.last().unwrap().revision, all.len()));
    }
}

pub async fn bodies_are_read_in_pages(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut tasks = Vec::new();
    for size in [100_u8, 50, 0, 10] {
        let task = t.plain().await;
        let given = t.claim(&worker, 1).await;
        let result = (size > 0).then(|| Bytes::from(vec![size; size.into()]));
        t.finish(&given[0], Completion::Succeeded(result)).await.unwrap();
        tasks.push(t.read(task.id).await);
    }
    let missing = TaskKey(u64::from(u32::MAX));
    let key = |index: usize| tasks[index].key;
    let keys = vec![key(3), missing, key(0), key(2), key(1)];
    let sizes = async |body, keys: &[TaskKey], bytes| {
        let found = t.store.bodies(body, keys.to_vec(), bytes).await.unwrap();
        found.into_iter().map(|(key, body)| (key, body.len())).collect::<Vec<_>>()
    };
    let all = [(key(3), 10), (key(0), 100), (key(1), 50)];
    assert_eq!(sizes(TaskBody::Result, &keys, 1_000).await, all);
    assert_eq!(sizes(TaskBody::Result, &keys, 160).await, all);
    assert_eq!(sizes(TaskBody::Result, &keys, 110).await, all[..2], "no more than these were asked for");
    assert_eq!(sizes(TaskBody::Result, &keys, 11).await, all[..2], "with the one that reaches the number");
    assert_eq!(sizes(TaskBody::Result, &keys[2..], 1).await, all[1..2], "at least one");
    let payloads = sizes(TaskBody::Payload, &keys, 1 << 20).await;
    assert_eq!(payloads.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(3), key(0), key(2), key(1)]);
    assert_eq!(sizes(TaskBody::Payload, &[], 1).await, []);
}

pub async fn ahead_counts_lower_ranks(t: &mut Harness) {
    t.agent("a").await;
    let mut ranks = Vec::new();
    for priority in [Priority::LOW, Priority::URGENT, Priority::NORMAL] {
        let mut create = t.task();
        create.task.priority = priority;
        ranks.push(t.create(create).await.rank());
    }
    let route = t.route(to_agent("a")).await;
    for (rank, before) in ranks.into_iter().zip([2, 0, 1]) {
        assert_eq!(t.store.ahead(route, rank).await.unwrap(), before);
    }
}

pub async fn stats_count_pending_and_heads(t: &mut Harness) {
    t.agent("a").await;
    let mut ready = Vec::new();
    for priority in [Priority::NORMAL, Priority::URGENT, Priority::LOW] {
        let mut create = t.task();
        create.task.priority = priority;
        ready.push(t.create(create).await.ready_at.unwrap());
        t.later(Duration::from_secs(1));
    }
    let mut waits = t.task();
    waits.task.target = to_agent("missing");
    t.create(waits).await;
    let (route, none) = (t.route(to_agent("a")).await, t.route(to_agent("missing")).await);
    let stats = t.store.stats(vec![route, none]).await.unwrap();
    assert_eq!(stats, StoreStats { pending: 1, next: vec![(route, ready[1])] });
    let snapshot = t.store.snapshot().await.unwrap();
    assert_eq!((snapshot.queued, snapshot.pending), (vec![(route, 3)], vec![(none, 1)]));
}

pub async fn snapshot_equals_reopened_state(t: &mut Harness) {
    t.agent("a").await;
    t.agent("b").await;
    for agent in ["a", "a", "b", "c"] {
        let mut create = t.task();
        create.task.target = to_agent(agent);
        t.create(create).await;
    }
    let worker = t.hello("w").await;
    t.claim(&worker, 1).await;
    let before = t.store.snapshot().await.unwrap();
    assert_eq!((before.agents.len(), before.routes.len()), (2, 3));
    let queued: Vec<_> = before.queued.iter().map(|(_, count)| *count).collect();
    assert_eq!((queued, before.on_workers.len(), before.sessions.len()), (vec![1, 1], 1, 1));
    t.reopen().await;
    let after = t.store.snapshot().await.unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}
