//! Consequences for many tasks: no commit takes up all of them, none is lost over a restart, and others are served in
//! between.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_core::RouteId;
use rota_core::task::{Completion, DependencyKey, Limits, OnFailure, State, Task};

use super::harness::{Harness, delete_agent, depend, make, on, on_alias, put_agent, put_bounds};
use crate::{Commit, Filter};

/// More than two commits take up.
const MANY: usize = 600;
/// Changed tasks, or steps, of one commit, at most: the follow-ups, and those of the commands.
pub(super) const MOST: usize = 256 + 8;

async fn create_many(t: &mut Harness, make_one: impl Fn(&mut Harness) -> crate::Create) {
    let batch = (0..MANY).map(|_| make(make_one(t))).collect();
    for reply in t.batch(batch).await {
        reply.unwrap();
    }
    t.commits.clear();
}

/// Executes empty batches until nothing is left to do, and checks that no commit was large.
pub(super) async fn settle(t: &mut Harness) -> usize {
    let mut rounds = 0;
    while !t.store.snapshot().await.unwrap().follow_ups.is_empty() {
        t.batch(Vec::new()).await;
        rounds += 1;
        assert!(rounds < 1000, "the follow-ups have no end");
    }
    t.batch(Vec::new()).await;
    let changed = |commit: &Commit| commit.tasks.len().max(commit.steps.len());
    let largest = t.commits.iter().map(changed).max().unwrap_or_default();
    assert!(largest <= MOST, "a commit changed {largest} tasks or steps");
    t.commits.len()
}

async fn all(t: &Harness) -> Vec<Task> {
    let mut filter = Filter { limit: 1000, ..Filter::default() };
    let mut tasks = Vec::new();
    loop {
        let page = t.store.list(filter.clone()).await.unwrap();
        tasks.extend(page.tasks);
        match page.next {
            Some(next) => filter.before = Some(next),
            None => return tasks,
        }
    }
}

async fn count(t: &Harness, state: State) -> usize {
    all(t).await.iter().filter(|task| task.state == state).count()
}

pub async fn wide_fan_out_takes_several_commits(t: &mut Harness) {
    t.agent("a").await;
    let root = t.plain().await.id;
    create_many(t, |t| t.after(vec![on(root)])).await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.commits.clear();
    t.finish(&task, Completion::Succeeded(None)).await.unwrap();
    assert!(settle(t).await > 2);
    assert_eq!(count(t, State::Queued).await, MANY);
    // A task that begins to depend on it in between needs no notice.
    let late = t.after(vec![on(root)]);
    assert_eq!(t.create(late).await.state, State::Queued);
}

pub async fn failing_graph_takes_several_commits(t: &mut Harness) {
    t.agent("a").await;
    let root = t.plain().await.id;
    let mut middle = Vec::new();
    for _ in 0..4 {
        let create = t.after(vec![on(root)]);
        middle.push(t.create(create).await.id);
    }
    let next = std::cell::Cell::new(0);
    create_many(t, |t| {
        next.set(next.get() + 1);
        t.after(vec![on(middle[next.get() % 4])])
    })
    .await;
    t.cancel(root).await;
    assert!(settle(t).await > 2);
    assert_eq!(count(t, State::Failed).await, MANY + 4);
}

pub async fn follow_ups_survive_a_restart(t: &mut Harness) {
    t.agent("a").await;
    let root = t.plain().await.id;
    create_many(t, |t| t.after(vec![on(root)])).await;
    t.cancel(root).await;
    t.reopen().await;
    settle(t).await;
    assert_eq!(count(t, State::Failed).await, MANY);
}

pub async fn many_waiters_find_their_task(t: &mut Harness) {
    t.agent("a").await;
    create_many(t, |t| t.after(vec![on_alias("late")])).await;
    let mut late = t.task();
    late.task.alias = Some("late".to_owned());
    let first = t.create(late).await;
    let mut second = t.task();
    second.task.alias = Some("late".to_owned());
    t.create(second).await;
    settle(t).await;
    let waiting = all(t).await;
    let waiting = waiting.iter().filter(|task| task.state == State::Pending);
    let ids: Vec<_> = waiting.map(|task| task.dependencies[0].id()).collect();
    assert_eq!(ids.len(), MANY);
    assert!(ids.iter().all(|id| *id == Some(first.id)), "the first one after their creation");
    t.cancel(first.id).await;
    settle(t).await;
    assert_eq!(count(t, State::Failed).await, MANY);
}

pub async fn changed_agent_reaches_a_long_queue(t: &mut Harness) {
    t.agent("a").await;
    create_many(t, Harness::task).await;
    let limits = Limits { queue_timeout: Some(Duration::from_secs(60)), ..Limits::default() };
    t.one(put_bounds(limits)).await.unwrap();
    // Another change before the first has reached all of them.
    let limits = Limits { queue_timeout: Some(Duration::from_secs(90)), ..Limits::default() };
    t.one(put_bounds(limits)).await.unwrap();
    assert!(settle(t).await > 2);
    assert!(all(t).await.iter().all(|task| task.defaults == limits));
}

pub async fn deleted_agent_leaves_no_ready_task(t: &mut Harness) {
    t.agent("a").await;
    t.agent("b").await;
    create_many(t, Harness::task).await;
    let worker = t.hello("w").await;
    t.one(delete_agent("a")).await.unwrap();
    // Its connected worker gets none of those that the deletion has not reached yet.
    assert_eq!(t.claim(&worker, 50).await.len(), 0);
    settle(t).await;
    assert_eq!(count(t, State::Pending).await, MANY);
    t.commits.clear();
    t.one(put_agent("a", "v2", None)).await.unwrap();
    assert!(settle(t).await > 2);
    assert_eq!(count(t, State::Queued).await, MANY);
    assert_eq!(t.claim(&worker, 5).await.len(), 5);
}

pub async fn follow_ups_continue_without_calls(t: &mut Harness) {
    t.agent("a").await;
    let root = t.plain().await.id;
    create_many(t, |t| t.after(vec![on(root)])).await;
    t.cancel(root).await;
    // The commits report all of them, without a further call of the store.
    let mut failed = t.commits.iter().flat_map(|commit| &commit.tasks).count() - 1;
    while failed < MANY {
        failed += t.next_commit().await.tasks.len();
    }
    assert_eq!(failed, MANY);
}

fn move_queued(queued: &mut BTreeMap<RouteId, i64>, commit: &Commit) {
    for change in &commit.tasks {
        let ready = |state| i64::from(state == State::Queued);
        *queued.entry(change.route).or_default() += ready(change.task.state) - change.before.map_or(0, ready);
    }
}

/// A reader that starts while the store continues its follow-ups counts no task twice.
pub async fn snapshot_states_which_commits_it_contains(t: &mut Harness) {
    t.agent("a").await;
    let root = t.plain().await.id;
    create_many(t, |t| t.after(vec![depend(DependencyKey::Id(root), OnFailure::Continue)])).await;
    // Its commit is received, and contained in the snapshot; later ones, in one of the two or in both.
    t.cancel(root).await;
    let snapshot = t.store.snapshot().await.unwrap();
    let count = |(route, count): (_, u64)| (route, i64::try_from(count).unwrap());
    let mut queued: BTreeMap<_, _> = snapshot.queued.into_iter().map(count).collect();
    settle(t).await;
    for commit in t.commits.iter().filter(|commit| commit.revision > snapshot.revision) {
        move_queued(&mut queued, commit);
    }
    let end = t.store.snapshot().await.unwrap();
    assert_eq!(queued, end.queued.into_iter().map(count).collect());
    assert!(queued.into_values().eq([i64::try_from(MANY).unwrap()]));
}
