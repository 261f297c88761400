//! A store that commit dc61eb4 wrote is migrated when it is opened, and work continues.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Target;
use rota_core::task::{self, State, Task, WorkerRef};
use rota_core::{AgentName, Namespace, TaskId, Timestamp};
use rota_store::{Budget, Command, Create, EndSession, Filter, PutAgent, Reply, Snapshot, Store};
use rota_store_sqlite::{Options, Sqlite};
use rusqlite::Connection;
use uuid::Uuid;

/// After everything in the store.
const NOW: Timestamp = Timestamp(1_900_000_000_000_000);

fn namespace() -> Namespace {
    Namespace::new("default").unwrap()
}

fn open(path: &Path) -> Sqlite {
    rota_store_sqlite::open(Options { path: path.to_owned(), clock: Arc::new(|| NOW), seed: 1 }).unwrap()
}

async fn one(store: &Sqlite, command: Command) -> Reply {
    store.apply(vec![command]).await.unwrap().remove(0).unwrap()
}

async fn by_title(store: &Sqlite, title: &str) -> Task {
    let page = store.list(Filter { limit: 100, ..Filter::default() }).await.unwrap();
    page.tasks.into_iter().find(|task| task.title.starts_with(title)).unwrap()
}

fn agent(name: &str) -> Command {
    let agent = Agent {
        namespace: namespace(),
        name: AgentName::new(name).unwrap(),
        generation: 0,
        capabilities: [].into(),
        defaults: task::Limits::default(),
        created_at: NOW,
        updated_at: NOW,
        payload: Bytes::new(),
    };
    Command::PutAgent(PutAgent { agent, must_exist: None })
}

fn create(agent: &str, key: &str) -> Command {
    let target = Target::Agent(AgentName::new(agent).unwrap());
    Command::Create(Box::new(Create {
        task: Task::new(TaskId(Uuid::from_u128(1)), namespace(), target),
        payload: Bytes::from_static(b"work"),
        secrets: None,
        key: Some(key.to_owned()),
        foreign_id: false,
        strict: false,
        offer: None,
    }))
}

async fn check_records(store: &Sqlite, snapshot: &Snapshot) {
    let page = store.list(Filter { limit: 100, ..Filter::default() }).await.unwrap();
    assert_eq!(page.tasks.len(), 10);
    for task in &page.tasks {
        let log = store.events(task.key, 0, Budget::UNLIMITED).await.unwrap();
        assert_eq!(log.len() as u64, task.log_seq, "{}", task.title);
        assert!(!store.payload(task.key).await.unwrap().unwrap().is_empty());
        assert_eq!(store.result(task.key).await.unwrap().is_some(), task.has_result);
    }
    assert_eq!(snapshot.agents.len(), 1);
    assert_eq!(snapshot.on_workers.len(), 2);
    assert!(!snapshot.sessions.is_empty());
    let feed = store.feed(0, Budget::UNLIMITED).await.unwrap().entries;
    assert_eq!(feed.last().unwrap().revision, snapshot.revision);
}

#[tokio::test]
async fn store_of_an_earlier_version_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../data/dc61eb4.sql")).unwrap();
    old.close().unwrap();

    let store = open(&path);
    let snapshot = store.snapshot().await.unwrap();
    check_records(&store, &snapshot).await;

    // A key of the old store still names its task.
    let reply = one(&store, create("absent", "k1")).await;
    assert!(matches!(&reply, Reply::Existing(task) if task.state == State::Succeeded), "{reply:?}");
    // A task that waits for its agent becomes ready with it.
    let waits = (namespace(), "waits".to_owned());
    assert_eq!(store.newest(waits.clone()).await.unwrap().unwrap().state, State::Pending);
    one(&store, agent("absent")).await;
    assert_eq!(store.newest(waits).await.unwrap().unwrap().state, State::Queued);
    // Ids of routes go on where they were.
    one(&store, create("another", "k3")).await;
    let routes = store.snapshot().await.unwrap().routes;
    assert_eq!(routes.last().unwrap().0.0, snapshot.last_route + 1);
    // Tasks on workers that do not come back are queued again; an open question is withdrawn with its attempt.
    for session in &snapshot.sessions {
        let session = WorkerRef { worker: session.worker.clone(), epoch: session.epoch };
        let message = "it did not come back".to_owned();
        one(&store, Command::EndSession(EndSession { namespace: namespace(), session, message })).await;
    }
    assert_eq!(by_title(&store, "Takes ten").await.state, State::Queued);
    assert_eq!(by_title(&store, "Asks a person").await.state, State::Queued);
    let revision = store.revision().await.unwrap();
    assert!(revision > snapshot.revision);
    store.close().await;

    let store = open(&path);
    assert_eq!(store.revision().await.unwrap(), revision);
    store.close().await;
}
