//! A store that commit dc61eb4 wrote is migrated when it is opened, and work continues.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Target;
use rota_core::task::{
    self, Dependency, DependencyKey, DependencyState, Loss, OnFailure, State, Task, WorkerRef,
};
use rota_core::{AgentName, Namespace, TaskId, Timestamp};
use rota_store::{Budget, Command, Create, EndSession, Filter, Prune, PutAgent, Reply, Snapshot, Store};
use rota_store_sqlite::{Options, Sqlite};
use rusqlite::{Connection, params};
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
        budget: Default::default(),
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
        given: Default::default(),
        key: Some(key.to_owned()),
        foreign_id: false,
        strict: false,
        offer: None,
    }))
}

/// Of a task that has succeeded with a result, of one that runs, and of one that has failed.
const WITH_RESULT: u128 = 0x01a2_0445_3d02_71ab_b546_d8c6_95e4_39fc;
const RUNNING: u128 = 0x01a2_0445_3d02_71ab_b546_d8c8_f29d_a590;
const FAILED: u128 = 0x01a2_0445_3d02_71ab_b546_d8cb_c27a_03ad;
const WAITING: u128 = 0x01a2_0445_3d02_71ab_b546_d8ca_86ec_aa80;
const NEEDS_TWO: u128 = 0x01a2_0445_3d02_71ab_b546_0000_0000_0001;

/// Adds a task with secrets that needs one that has ended and one that runs, as the old version left it, and the edge of
/// a dependent that has ended before the task that it needed.
fn add_dependents(old: &Connection) {
    let bytes = |id: u128| id.to_be_bytes();
    let record: Vec<u8> =
        old.query_row("SELECT record FROM tasks WHERE id = ?", [bytes(WAITING)], |row| row.get(0)).unwrap();
    let mut task: Task = rmp_serde::from_slice(&record).unwrap();
    let need = |id, state| Dependency {
        of_thread: false,
        key: DependencyKey::Id(TaskId(Uuid::from_u128(id))),
        on_failure: OnFailure::Fail,
        state,
    };
    let ended = DependencyState::Ended(TaskId(Uuid::from_u128(WITH_RESULT)), State::Succeeded);
    let waits = DependencyState::Waiting(TaskId(Uuid::from_u128(RUNNING)));
    task.dependencies = vec![need(WITH_RESULT, ended), need(RUNNING, waits)];
    (task.id, task.title, task.alias, task.has_secrets) =
        (TaskId(Uuid::from_u128(NEEDS_TWO)), "Needs two".to_owned(), None, true);
    let record = rmp_serde::to_vec_named(&task).unwrap();
    let copy =
        "INSERT INTO tasks SELECT ?1, namespace, state, route, rank, due, ended, ?2 FROM tasks WHERE id = ?3";
    old.execute(copy, params![bytes(NEEDS_TWO), record, bytes(WAITING)]).unwrap();
    let copy = "INSERT INTO payloads SELECT ?1, body FROM payloads WHERE id = ?2";
    old.execute(copy, [bytes(NEEDS_TWO), bytes(WAITING)]).unwrap();
    let copy = "INSERT INTO events (revision, task, first, body)
                SELECT (SELECT max(revision) + 1 FROM events), ?1, first, body FROM events WHERE task = ?2";
    old.execute(copy, [bytes(NEEDS_TWO), bytes(WAITING)]).unwrap();
    old.execute("INSERT INTO secrets VALUES (?, x'5ea1ed')", [bytes(NEEDS_TWO)]).unwrap();
    let edge = "INSERT INTO edges (id, dependent) VALUES (?, ?)";
    old.execute(edge, [bytes(RUNNING), bytes(NEEDS_TWO)]).unwrap();
    old.execute(edge, [bytes(RUNNING), bytes(FAILED)]).unwrap();
}

#[tokio::test]
async fn links_and_secrets_survive_the_migration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../data/dc61eb4.sql")).unwrap();
    add_dependents(&old);
    old.close().unwrap();

    let store = open(&path);
    let prune = Prune { ended_before: Some(NOW), left_before: NOW, limit: 100 };
    one(&store, Command::Prune(prune)).await;
    let found = |id| store.task((namespace(), TaskId(Uuid::from_u128(id))));
    assert_eq!(found(FAILED).await.unwrap(), None, "no task needs it");
    let needed = found(WITH_RESULT).await.unwrap().unwrap();
    assert!(store.result(needed.key).await.unwrap().is_some());
    let (running, needs) = (found(RUNNING).await.unwrap().unwrap(), found(NEEDS_TWO).await.unwrap().unwrap());
    store.close().await;

    let database = Connection::open(&path).unwrap();
    let mut edges = database.prepare("SELECT task, dependent FROM edges ORDER BY task").unwrap();
    let edges = edges.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap();
    let mut wanted = [needed.key, running.key].map(|on| (on.0.cast_signed(), needs.key.0.cast_signed()));
    wanted.sort_unstable();
    assert_eq!(edges.collect::<Result<Vec<_>, _>>().unwrap(), wanted);
    let secrets: (i64, Vec<u8>) = database
        .query_row("SELECT key, sealed FROM secrets", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(secrets, (needs.key.0.cast_signed(), vec![0x5e, 0xa1, 0xed]));
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
        one(
            &store,
            Command::EndSession(EndSession {
                namespace: namespace(),
                session,
                loss: Loss::Died,
                seen: None,
                message,
            }),
        )
        .await;
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
