//! Steps of the indexer on a store in memory: none loses a task or adds one twice, wherever it is interrupted.

use std::sync::Arc;

use prost::Message;
use rota_core::target::Target;
use rota_core::{AgentName, Namespace, TaskId, Timestamp};
use rota_proto::v1;
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::search::{SearchQuery, query_words};
use rota_store::single_writer::SingleWriterStore;
use rota_store::{Command, Create};
use uuid::Uuid;

use super::*;

fn store() -> SingleWriterStore<InMemoryStore> {
    let memory = InMemoryStore::default();
    let engine = Engine::new(memory.clone(), 0).unwrap();
    let store = SingleWriterStore::start(engine, memory, Arc::new(|| Timestamp(1))).unwrap();
    drop(store.commits());
    store
}

async fn create(store: &dyn Store, ids: std::ops::Range<u128>, prompt: &str) {
    let one = |id| {
        let target = Target::Agent(AgentName::new("a").unwrap());
        let task = Task::new(TaskId(Uuid::from_u128(id)), Namespace::new("n").unwrap(), target);
        let spec = v1::TaskSpec { prompt: format!("{prompt} {id}"), ..Default::default() };
        Command::Create(Box::new(Create {
            task,
            payload: spec.encode_to_vec().into(),
            secrets: None,
            given: Default::default(),
            key: None,
            foreign_id: true,
            strict: false,
            offer: None,
        }))
    };
    for reply in store.apply(ids.map(one).collect()).await.unwrap() {
        reply.unwrap();
    }
}

async fn found(store: &dyn Store, text: &str) -> usize {
    let query = SearchQuery { words: query_words(text), limit: 10_000, ..SearchQuery::default() };
    store.search(query).await.unwrap().len()
}

/// Takes all steps, as another process after a restart. Returns the revision that the index is complete up to.
async fn catch_up(store: &dyn Store) -> u64 {
    let (state, mut sweep) = (IndexState::default(), None);
    while step(store, &state, &mut sweep).await.unwrap() {}
    assert_eq!(state.lag(), 0);
    store.indexed_revision().await.unwrap().unwrap()
}

#[tokio::test]
async fn interrupted_steps_continue_where_the_last_one_ended() {
    let store = store();
    create(&store, 1..1301, "needle").await;
    let revision = store.revision().await.unwrap();
    let first = advance(&store, None, revision).await.unwrap();
    assert!(first < revision, "more than one page");
    let part = found(&store, "needle").await;
    assert!(part > 0 && part < 1300, "{part}");
    // What was read before the position moved is not added any more.
    assert!(matches!(advance(&store, Some(first - 1), revision).await, Err(Error::Unavailable { .. })));
    assert_eq!(found(&store, "needle").await, part);
    let second = advance(&store, Some(first), revision).await.unwrap();
    assert!(second > first);
    assert_eq!(catch_up(&store).await, revision);
    assert_eq!((found(&store, "needle").await, found(&store, "1300").await), (1300, 1));
    assert_eq!(store.indexed_keys(TaskKey(0), 2000).await.unwrap().len(), 1300);
    store.close().await;
}

#[tokio::test]
async fn large_texts_are_read_in_parts() {
    let store = store();
    create(&store, 1..13, &"needle ".repeat(150_000)).await;
    let revision = store.revision().await.unwrap();
    let through = advance(&store, None, revision).await.unwrap();
    assert!(through < revision);
    let part = found(&store, "needle").await;
    assert!((1..12).contains(&part), "{part} of 1 MiB each");
    catch_up(&store).await;
    assert_eq!(found(&store, "needle").await, 12);
    store.close().await;
}

#[tokio::test]
async fn index_that_is_ahead_is_built_again() {
    let store = store();
    create(&store, 1..4, "needle").await;
    let namespace = Namespace::new("n").unwrap();
    let tasks = vec![IndexedTask::new(TaskKey(99), &namespace, ["needle of a history that is lost"])];
    let update = IndexUpdate { after: None, through: 1000, tasks, removed: Vec::new() };
    assert!(store.update_index(update).await.unwrap());
    let indexed = catch_up(&store).await;
    assert_eq!((indexed, found(&store, "needle").await), (store.revision().await.unwrap(), 3));
    // What the store does not have any more is removed.
    let removed = vec![IndexedTask::new(TaskKey(98), &namespace, ["needle"])];
    let update = IndexUpdate { after: Some(indexed), through: indexed, tasks: removed, removed: Vec::new() };
    assert!(store.update_index(update).await.unwrap());
    catch_up(&store).await;
    assert_eq!(store.indexed_keys(TaskKey(0), 10).await.unwrap().len(), 3);
    store.close().await;
}

#[tokio::test]
async fn index_is_built_again_on_request() {
    let store = store();
    create(&store, 1..1001, "needle").await;
    let indexed = catch_up(&store).await;
    // Lost behind the position: no step looks for them.
    let removed = store.indexed_keys(TaskKey(0), 10).await.unwrap();
    let update = IndexUpdate { after: Some(indexed), through: indexed, tasks: Vec::new(), removed };
    assert!(store.update_index(update).await.unwrap());
    let (state, mut sweep) = (IndexState::default(), None);
    while step(&store, &state, &mut sweep).await.unwrap() {}
    assert_eq!(found(&store, "needle").await, 990);
    state.rebuild();
    let mut steps = 1;
    while step(&store, &state, &mut sweep).await.unwrap() {
        steps += 1;
    }
    assert_eq!(found(&store, "needle").await, 1000);
    assert!(steps > 1, "only the first step of several begins again");
    assert_eq!(catch_up(&store).await, indexed);
    store.close().await;
}
