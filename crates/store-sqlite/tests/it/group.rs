//! Group commit: calls that arrive while a commit runs share the next one, and all have replies.

use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::SingleWriterStore;
use rota_store::{Command, Error, PutAgent, Reply, Store};

use crate::faulty::{Faulty, Plan};

fn start(plan: &Arc<Plan>) -> Arc<SingleWriterStore<InMemoryStore>> {
    let memory = InMemoryStore::default();
    let tables = Faulty { inner: memory.clone(), plan: Arc::clone(plan) };
    let engine = Engine::new(tables, 0).unwrap();
    Arc::new(SingleWriterStore::start(engine, memory, Arc::new(|| Timestamp(1))).unwrap())
}

fn put(number: usize) -> Command {
    let agent = rota_core::agent::Agent {
        namespace: rota_core::Namespace::new("n").unwrap(),
        name: rota_core::AgentName::new(&format!("a{number}")).unwrap(),
        generation: 0,
        capabilities: Default::default(),
        defaults: Default::default(),
        budget: Default::default(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        payload: Default::default(),
    };
    Command::PutAgent(PutAgent { agent, must_exist: Some(false) })
}

fn made(replies: &[Result<Reply, rota_store::Refused>]) -> Vec<String> {
    let made = replies.iter().map(|reply| match reply {
        Ok(Reply::Agent(agent)) => agent.name.to_string(),
        other => panic!("{other:?}"),
    });
    made.collect()
}

/// Sends a call without waiting for the reply: the call is in the queue when this returns.
async fn ask(
    store: &Arc<SingleWriterStore<InMemoryStore>>,
    batch: Vec<Command>,
    lazily: bool,
) -> impl Future<Output = Result<Vec<Result<Reply, rota_store::Refused>>, Error>> {
    let store = Arc::clone(store);
    let mut call =
        Box::pin(
            async move { if lazily { store.apply_lazily(batch).await } else { store.apply(batch).await } },
        );
    assert!(is_pending(&mut call).await, "answered before its commit");
    call
}

async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context)))
        .await
        .is_pending()
}

#[tokio::test]
async fn waiting_calls_share_one_commit() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    let mut commits = store.commits().unwrap();
    plan.close();
    let first = ask(&store, vec![put(0)], false).await;
    plan.until_someone_waits();
    let mut others = Vec::new();
    for number in 0..50 {
        let batch = vec![put(10 + 2 * number), put(11 + 2 * number)];
        others.push((number, ask(&store, batch, number % 5 == 0).await));
    }
    plan.open();
    assert_eq!(made(&first.await.unwrap()), ["a0"]);
    for (number, call) in others {
        let names = made(&call.await.unwrap());
        assert_eq!(names, [format!("a{}", 10 + 2 * number), format!("a{}", 11 + 2 * number)]);
    }
    assert_eq!(plan.commits(), 2);
    assert_eq!(commits.recv().await.unwrap().agents.len(), 1);
    let names: Vec<_> =
        commits.recv().await.unwrap().agents.iter().map(|change| change.agent.name.to_string()).collect();
    assert_eq!(names, (10..110).map(|number| format!("a{number}")).collect::<Vec<_>>(), "in their order");
}

#[tokio::test]
async fn large_calls_share_commits_of_bounded_bytes() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    plan.close();
    let first = ask(&store, vec![put(0)], false).await;
    plan.until_someone_waits();
    let mut others = Vec::new();
    for number in 1..=6 {
        let Command::PutAgent(mut large) = put(number) else { unreachable!() };
        large.agent.payload = vec![0; 4 << 20].into();
        others.push(ask(&store, vec![Command::PutAgent(large)], false).await);
    }
    plan.open();
    first.await.unwrap();
    for call in others {
        call.await.unwrap();
    }
    assert_eq!(plan.commits(), 1 + 3, "8 MiB each");
}

/// Of calls that share a commit, one may be too large for a disk that is nearly full: the others must not fail with it again
/// and again.
#[tokio::test]
async fn calls_share_no_commit_after_a_failure() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    plan.close();
    plan.fail_commits(1);
    let first = ask(&store, vec![put(0)], false).await;
    plan.until_someone_waits();
    let mut others = Vec::new();
    for number in 1..=20 {
        others.push(ask(&store, vec![put(number)], false).await);
    }
    plan.open();
    assert!(matches!(first.await, Err(Error::Unavailable { .. })));
    for call in others {
        call.await.unwrap();
    }
    assert_eq!(plan.commits(), 21, "each by itself");
}

#[tokio::test]
async fn lone_lazy_call_is_answered_soon() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    let answer = tokio::time::timeout(Duration::from_secs(10), store.apply_lazily(vec![put(0)])).await;
    assert_eq!(made(&answer.unwrap().unwrap()), ["a0"]);
}

#[tokio::test]
async fn failed_commit_fails_its_calls_alone() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    plan.close();
    let first = ask(&store, vec![put(0)], false).await;
    plan.until_someone_waits();
    let (second, third) = (ask(&store, vec![put(1)], false).await, ask(&store, vec![put(2)], false).await);
    plan.fail_commits(2);
    plan.open();
    for call in [first, second] {
        let error = call.await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    }
    assert_eq!(made(&third.await.unwrap()), ["a2"]);
    assert_eq!(made(&store.apply(vec![put(3)]).await.unwrap()), ["a3"]);
}

#[tokio::test]
async fn close_completes_pending_calls() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    plan.close();
    let first = ask(&store, vec![put(0)], false).await;
    plan.until_someone_waits();
    let (second, third) = (ask(&store, vec![put(1)], false).await, ask(&store, vec![put(2)], true).await);
    plan.open();
    store.close().await;
    for call in [first, second, third] {
        call.await.unwrap();
    }
    assert!(matches!(store.apply(vec![put(3)]).await, Err(Error::Closed)));
    store.close().await;
}

#[tokio::test]
async fn close_waits_for_abandoned_close() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    plan.close();
    let call = ask(&store, vec![put(0)], false).await;
    plan.until_someone_waits();
    for _ in 0..2 {
        let mut close = std::pin::pin!(store.close());
        assert!(is_pending(&mut close).await);
    }
    plan.open();
    store.close().await;
    assert_eq!(Arc::strong_count(&plan), 1, "the engine is still there");
    call.await.unwrap();
}

#[tokio::test]
async fn dropped_reader_does_not_block_writer() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    let mut commits = store.commits().unwrap();
    assert!(store.commits().is_none());
    store.apply(vec![put(0)]).await.unwrap();
    assert!(commits.try_recv().is_ok(), "it is published before the reply");
    drop(commits);
    for number in 1..1000 {
        store.apply(vec![put(number)]).await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_are_answered_in_order() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    let mut commits = store.commits().unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..32 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            for number in 0..50 {
                let number = caller * 1000 + number;
                let call = vec![put(number)];
                let replies = if number % 3 == 0 {
                    store.apply_lazily(call).await.unwrap()
                } else {
                    store.apply(call).await.unwrap()
                };
                assert_eq!(made(&replies), [format!("a{number}")]);
            }
        });
    }
    let reader = async {
        let mut last: Vec<Option<usize>> = vec![None; 32];
        let mut count = 0;
        while count < 32 * 50 {
            for change in commits.recv().await.unwrap().agents {
                let number: usize = change.agent.name.as_str()[1..].parse().unwrap();
                let last = &mut last[number / 1000];
                assert!(last.is_none_or(|last| last < number));
                *last = Some(number);
                count += 1;
            }
        }
    };
    tokio::join!(reader, async { while callers.join_next().await.transpose().unwrap().is_some() {} });
    assert!(plan.commits() < 32 * 50, "they shared commits");
}

#[tokio::test]
async fn calls_keep_their_order_when_queue_is_full() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    let mut commits = store.commits().unwrap();
    plan.close();
    let mut calls = vec![ask(&store, vec![put(0)], false).await];
    plan.until_someone_waits();
    // Each takes a third of the queue; then small ones, which would fit.
    for number in 1..20 {
        let mut command = put(number);
        if let (1..=6, Command::PutAgent(put)) = (number, &mut command) {
            put.agent.payload = vec![0; 22 << 20].into();
        }
        calls.push(ask(&store, vec![command], false).await);
    }
    plan.open();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(made(&call.await.unwrap()), [format!("a{number}")]);
    }
    let mut names = Vec::new();
    while let Ok(commit) = commits.try_recv() {
        names.extend(commit.agents.iter().map(|change| change.agent.name.to_string()));
    }
    assert_eq!(names, (0..20).map(|number| format!("a{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn failed_sync_ends_the_writer() {
    let plan = Arc::new(Plan::default());
    let store = start(&plan);
    let mut commits = store.commits().unwrap();
    store.apply(vec![put(0)]).await.unwrap();
    assert!(commits.recv().await.is_some());
    plan.fail_sync();
    assert!(matches!(store.apply(vec![put(1)]).await, Err(Error::LostSync(_))));
    // The end of the stream ends the control plane.
    assert!(commits.recv().await.is_none());
    assert!(matches!(store.apply(vec![put(2)]).await, Err(Error::Closed)));
}
