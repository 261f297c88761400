//! Topics, lanes and wake-ups, on commits made by hand.

use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Wake, Waker};

use rota_core::failure::Severity;
use rota_core::target::Target;
use rota_core::task::{Body, Event, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, TaskKey, Timestamp};
use rota_proto::v1;
use rota_store::TaskChange;
use uuid::Uuid;

use super::*;

fn task(key: u64) -> Task {
    let (namespace, agent) = (Namespace::new("n").unwrap(), AgentName::new("a").unwrap());
    let task = Task::new(TaskId(Uuid::from_u128(key.into())), namespace, Target::Agent(agent));
    Task { key: TaskKey(key), ..task }
}

/// Returns a commit that adds one entry to the log of a task.
fn commit(key: u64, log_seq: u64, revision: u64, text: &str) -> Commit {
    let body = Body::Notice { severity: Severity::Low, code: "c".into(), message: text.to_owned() };
    let change = TaskChange {
        task: Arc::new(Task { log_seq, ..task(key) }),
        route: RouteId(1),
        before: None,
        events: Arc::new([Event { log_seq, at: Timestamp(0), attempt: 0, body }]),
        revision,
        dispatch: None,
        identified: false,
    };
    Commit { tasks: vec![change], ..Commit::default() }
}

fn all_tasks() -> Topic {
    Topic::Feed { namespace: None, states_only: false, managed_only: false, form: Form::Single }
}

#[derive(Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn only_watchers_of_touched_task_wake() {
    let watchers = Arc::new(Watchers::default());
    let mut subscriptions: Vec<_> =
        (1..=100).map(|key| watchers.subscribe(Topic::Task(TaskKey(key)))).collect();
    let counts: Vec<_> = subscriptions.iter().map(|_| Arc::new(WakeCount::default())).collect();
    let mut waiting: Vec<_> = subscriptions.iter_mut().map(|one| Box::pin(one.next(0))).collect();
    for (future, count) in waiting.iter_mut().zip(&counts) {
        let waker = Waker::from(Arc::clone(count));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    watchers.publish(&commit(7, 1, 1, "text"), Timestamp(0));
    assert!(counts.iter().all(|count| count.0.load(Ordering::Relaxed) == 0), "the commit woke a watcher");
    watchers.flush();
    let woken: Vec<_> = (1..).zip(&counts).filter(|(_, count)| count.0.load(Ordering::Relaxed) > 0).collect();
    assert!(matches!(&woken[..], [(7, count)] if count.0.load(Ordering::Relaxed) == 1));
}

#[test]
fn busy_feeds_rest_longer_for_many_watchers() {
    let watchers = Arc::new(Watchers::default());
    let _of_task = watchers.subscribe(Topic::Task(TaskKey(1)));
    let mut subscriptions = Vec::new();
    let mut interval = |count: usize| {
        subscriptions.truncate(count);
        subscriptions.resize_with(count, || watchers.subscribe(all_tasks()));
        watchers.busy_feed_interval().as_millis()
    };
    let intervals = [1, 25, 50, 100, 1000, 1].map(&mut interval);
    assert_eq!(intervals, [50, 50, 100, 200, 200, 50]);
}

#[tokio::test]
async fn changes_within_interval_become_one_message() {
    let watchers = Arc::new(Watchers::default());
    let mut subscription = watchers.subscribe(all_tasks());
    for (key, log_seq, revision) in [(1, 1, 1), (2, 1, 2), (1, 2, 3), (3, 1, 4)] {
        watchers.publish(&commit(key, log_seq, revision, "text"), Timestamp(0));
    }
    watchers.flush();
    let Next::Chunk(mut chunk, 4) = subscription.next(0).await else { panic!("there is no chunk") };
    let mut messages = Vec::new();
    while let Some(message) = messages::take::<v1::WatchTasksResponse>(&mut chunk).unwrap() {
        let token = message.token.split_once('.').unwrap().0.to_owned();
        let log_seqs: Vec<_> = message.events.iter().map(|event| event.log_seq).collect();
        let task = message.task.unwrap();
        assert_eq!(Some(task.status.unwrap().log_seq), log_seqs.last().copied());
        messages.push((task.uid.ends_with('1'), log_seqs, token));
    }
    // The first token is from before all of it, since revision 1 comes later.
    let expected = [(false, vec![1], "0"), (true, vec![1, 2], "3"), (false, vec![1], "4")];
    assert_eq!(messages, expected.map(|(is_first, seqs, token)| (is_first, seqs, token.to_owned())));
}

#[test]
fn unwatched_commits_cost_nothing() {
    let watchers = Arc::new(Watchers::default());
    let other = Topic::Feed {
        namespace: Some(Namespace::new("other").unwrap()),
        states_only: false,
        managed_only: false,
        form: Form::Single,
    };
    let _subscriptions = [watchers.subscribe(other), watchers.subscribe(Topic::Task(TaskKey(2)))];
    watchers.publish(&commit(1, 1, 1, "text"), Timestamp(0));
    watchers.flush();
    assert_eq!(watchers.stats(), Stats { bytes: 0, chunks: 0, encoded: 0, reads: 0 });
}

#[test]
fn large_change_is_left_to_store() {
    let watchers = Arc::new(Watchers::default());
    let mut subscription = watchers.subscribe(all_tasks());
    watchers.publish(&commit(1, 1, 1, &"x".repeat(MAX_CHUNK_BYTES)), Timestamp(0));
    watchers.flush();
    assert_eq!(watchers.stats(), Stats { bytes: 0, chunks: 1, encoded: 0, reads: 0 });
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(pin!(subscription.next(0)).poll(&mut context), Poll::Ready(Next::Missing(1))));
    assert!(pin!(subscription.next(1)).poll(&mut context).is_pending());
}

#[test]
fn pending_changes_are_bounded_in_bytes() {
    let watchers = Arc::new(Watchers::default());
    let _subscription = watchers.subscribe(all_tasks());
    // No caller flushes: each quarter of a chunk that is full does it.
    for revision in 1..=40 {
        watchers.publish(&commit(revision, 1, revision, &"x".repeat(MAX_CHUNK_BYTES / 4)), Timestamp(0));
    }
    let stats = watchers.stats();
    assert_eq!((stats.chunks, stats.encoded), (10, 40));
    assert!(stats.bytes > 40 * MAX_CHUNK_BYTES / 4 && stats.bytes < 11 * MAX_CHUNK_BYTES);
}
