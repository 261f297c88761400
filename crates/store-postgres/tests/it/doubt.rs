//! Connections that are cut in the middle of a commit, sessions that are ended, and a server that crashes: every command that was
//! acknowledged is there once, and the store continues by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_core::target::Target as TaskTarget;
use rota_core::task::Task;
use rota_core::{Namespace, TaskId};
use rota_store::{Command, Create, Error, Filter, Reply, Store};
use rota_store_postgres::{Options, Postgres, Target};
use rota_testkit::postgres::{PostgresServer, Stop};
use tokio::sync::watch;
use uuid::Uuid;

use crate::cutter::{Cutter, FROM_SERVER, TO_SERVER};

pub(crate) fn create(number: u128) -> Command {
    let namespace = Namespace::new("n").unwrap();
    let target = TaskTarget::Capabilities(["code".to_owned()].into());
    let task = Task::new(TaskId(Uuid::from_u128(number + 1)), namespace, target);
    Command::Create(Box::new(Create {
        task,
        payload: Bytes::from(vec![1; 300]),
        secrets: None,
        given: Default::default(),
        key: Some(format!("key {number}")),
        foreign_id: false,
        strict: false,
        offer: None,
    }))
}

pub(crate) async fn open(target: &Target) -> Arc<Postgres> {
    let options = Options::new(target.clone(), "doubt");
    let opened = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None));
    Arc::new(opened.await.unwrap().unwrap().store)
}

/// Creates a task, again and again with the same key, until that is acknowledged. Returns how often it failed before.
async fn insist(store: &Postgres, number: u128) -> usize {
    for failed in 0..600 {
        match store.apply(vec![create(number)]).await {
            Ok(replies) => {
                let [Ok(Reply::Created(created))] = &replies[..] else { panic!("{replies:?}") };
                assert_eq!(created.id, TaskId(Uuid::from_u128(number + 1)));
                return failed;
            }
            Err(Error::Unavailable { message, hint }) => {
                assert!(!message.is_empty() && !hint.is_empty());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the store does not continue");
}

/// Every task is there once, in a row of revisions without a gap in their log.
pub(crate) async fn check(target: &Target, count: usize) {
    let store = open(target).await;
    let page = store.list(Filter { limit: 10_000, ..Filter::default() }).await.unwrap();
    let mut ids: Vec<_> = page.tasks.iter().map(|task| task.id.0.as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=count as u128).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_commits_are_made_once() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let cutter = Cutter::start(server, &database).await;
    let target = Target::parse(&cutter.url, None).unwrap();
    let store = open(&target).await;
    let mut random = StdRng::seed_from_u64(1);
    let count = 120;
    for number in 0..count {
        // A commit of one task sends about 2,500 bytes, and receives about 300.
        let direction = random.random_range(TO_SERVER..=FROM_SERVER);
        cutter.arm(direction, random.random_range(0..if direction == TO_SERVER { 3000 } else { 400 }));
        insist(&store, number).await;
        cutter.disarm();
    }
    for direction in [TO_SERVER, FROM_SERVER] {
        assert!(cutter.cuts(direction) > 10, "connections were cut");
    }
    let revision = store.revision().await.unwrap();
    store.close().await;
    drop(store);
    check(&target, count as usize).await;
    // One commit for each task, although many were sent twice.
    assert!(revision <= 2 * count as u64, "{revision}");
    // The mark of what was written twice would be two rows of one event.
    let doubled = "SELECT count(*) FROM (SELECT task, first FROM rota.events GROUP BY task, first HAVING count(*) > 1) AS d";
    assert_eq!(server.sql(&database, doubled).unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_the_server_lose_nothing() {
    let server = Arc::new(PostgresServer::start("").unwrap());
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let store = open(&target).await;
    let (stop, stopped) = watch::channel(false);
    let disturbing = {
        let (server, database) = (Arc::clone(&server), database.clone());
        tokio::task::spawn_blocking(move || {
            let mut rounds = 0;
            while !*stopped.borrow() || rounds < 6 {
                std::thread::sleep(Duration::from_millis(150));
                match rounds % 3 {
                    0 | 1 => {
                        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                            WHERE application_name LIKE 'rota-%' AND pid <> pg_backend_pid()";
                        server.sql(&database, end).unwrap();
                    }
                    _ => {
                        server.stop(Stop::Immediate).unwrap();
                        server.resume().unwrap();
                    }
                }
                rounds += 1;
            }
        })
    };
    let (callers, each) = (4_u128, 80_u128);
    let mut working = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let store = Arc::clone(&store);
        working.spawn(async move {
            for number in 0..each {
                insist(&store, caller * each + number).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    while let Some(done) = working.join_next().await {
        done.unwrap();
    }
    stop.send_replace(true);
    disturbing.await.unwrap();
    store.close().await;
    drop(store);
    check(&target, (callers * each) as usize).await;
}

/// A commit that is found after its caller was refused: memory would have it, and the followers of the commits would not.
#[tokio::test(flavor = "multi_thread")]
async fn commit_found_late_ends_the_writer() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let cutter = Cutter::start(server, &database).await;
    let target = Target::parse(&cutter.url, None).unwrap();
    let store = open(&target).await;
    let mut commits = store.commits().unwrap();
    cutter.block_after_cut();
    let tasks = database.clone();
    cutter.cut_once(move || server.sql(&tasks, "SELECT count(*) FROM rota.tasks").unwrap() == "1");
    let doubtful = store.apply(vec![create(0)]).await;
    assert!(
        matches!(&doubtful, Err(Error::Unavailable { message, .. }) if message.contains("outcome")),
        "{doubtful:?}"
    );
    cutter.block(false);
    let late = store.apply(vec![create(0)]).await;
    assert!(matches!(late, Err(Error::LostSync(_))), "{late:?}");
    assert!(commits.recv().await.is_none(), "the writer has ended, and published nothing");
    store.close().await;
    drop(store);
    let store = open(&target).await;
    let replies = store.apply(vec![create(0)]).await.unwrap();
    assert!(matches!(replies[..], [Ok(Reply::Existing(_))]), "{replies:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_not_made_is_repeated_later() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let cutter = Cutter::start(server, &database).await;
    let store = open(&Target::parse(&cutter.url, None).unwrap()).await;
    // Everything is sent, and the server waits for the lock.
    let holding = hold_shard(server, &database, 10).await;
    let writer = Arc::clone(&store);
    let applied = rota_telemetry::spawn("applied", rota_telemetry::OnExit::Done, async move {
        writer.apply(vec![create(0)]).await
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name LIKE 'rota-writer%' AND wait_event_type = 'Lock'";
    while server.sql(&database, waits).unwrap() != "1" {
        assert!(!applied.is_finished(), "the commit did not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cutter.block(true);
    let doubtful = applied.await.unwrap();
    assert!(
        matches!(&doubtful, Err(Error::Unavailable { message, .. }) if message.contains("outcome")),
        "{doubtful:?}"
    );
    cutter.block(false);
    insist(&store, 0).await;
    holding.await.unwrap().unwrap();
    store.close().await;
}

/// As after a failover to an asynchronous standby, which lacks the last commits.
#[tokio::test(flavor = "multi_thread")]
async fn owner_with_lost_history_ends() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let store = open(&target).await;
    assert_eq!(store.opening().lost, None);
    insist(&store, 0).await;
    let known = store.revision().await.unwrap();
    let lose = "DELETE FROM rota.commits WHERE revision = (SELECT max(revision) FROM rota.commits);
        DELETE FROM rota.tasks; DELETE FROM rota.specs; DELETE FROM rota.events; DELETE FROM rota.idempotency_keys;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'rota-%' AND datname = current_database()";
    server.sql(&database, lose).unwrap();
    let confirmed = store.apply(Vec::new()).await;
    assert!(matches!(confirmed, Err(Error::Deposed)), "{confirmed:?}");
    store.close().await;
    drop(store);
    // What it has noticed outlives it.
    let next = open(&target).await;
    let opening = next.opening();
    assert!(opening.revision < known && opening.lost == Some(known), "{opening:?}");
    insist(&next, 1).await;
    next.close().await;
    drop(next);
    let later = open(&target).await;
    assert_eq!(later.opening().lost, None, "there are commits in their place");
    later.close().await;
}

/// The owner has ended, and only one that stood by knows what there was.
#[tokio::test(flavor = "multi_thread")]
async fn standby_notices_lost_history() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let first = open(&target).await;
    insist(&first, 0).await;
    let known = first.revision().await.unwrap();
    let (looks, mut looked) = watch::channel(0);
    let on_wait =
        Arc::new(move |_: Option<&rota_store_postgres::Owner>| looks.send_modify(|looks| *looks += 1));
    let options = Options { on_wait, ..Options::new(target, "standby") };
    let waits = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None));
    looked.wait_for(|looks| *looks > 1).await.unwrap();
    let lose = "DELETE FROM rota.commits WHERE revision = (SELECT max(revision) FROM rota.commits)";
    server.sql(&database, lose).unwrap();
    first.close().await;
    drop(first);
    let store = waits.await.unwrap().unwrap().store;
    let opening = store.opening();
    assert!(opening.revision < known && opening.lost == Some(known), "{opening:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_waits_for_a_held_shard() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let store = open(&Target::parse(&database, None).unwrap()).await;
    let holding = hold_shard(server, &database, 3).await;
    let replies = store.apply(vec![create(0)]).await;
    assert!(matches!(replies.as_deref(), Ok([Ok(Reply::Created(_))])), "{replies:?}");
    holding.await.unwrap().unwrap();
    store.close().await;
}

/// Locks the row of the shard for some seconds. A commit waits for it three times, two seconds each.
pub(crate) async fn hold_shard(
    server: &'static PostgresServer,
    database: &str,
    seconds: u32,
) -> tokio::task::JoinHandle<Result<String, String>> {
    let holder = database.to_owned();
    let holding = tokio::task::spawn_blocking(move || {
        let hold = format!("BEGIN; SELECT 1 FROM rota.shards FOR UPDATE; SELECT pg_sleep({seconds}); COMMIT");
        server.sql(&holder, &hold).map_err(|error| error.to_string())
    });
    let held =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while server.sql(database, held).unwrap() != "1" {
        assert!(!holding.is_finished(), "the row was not held");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    holding
}

/// 2 MB at half a megabyte per second: the server receives one message for longer than a frozen owner may hold locks.
#[tokio::test(flavor = "multi_thread")]
async fn large_commits_pass_slow_links() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let cutter = Cutter::start(server, &database).await;
    let store = open(&Target::parse(&cutter.url, None).unwrap()).await;
    cutter.slow_down(Duration::from_millis(2));
    let Command::Create(mut large) = create(0) else { unreachable!() };
    large.payload = Bytes::from(vec![1; 2 << 20]);
    let replies = store.apply(vec![Command::Create(large)]).await;
    assert!(matches!(replies.as_deref(), Ok([Ok(Reply::Created(_))])), "{replies:?}");
    cutter.slow_down(Duration::ZERO);
    store.close().await;
}

/// A connection whose answer never came may be in a transaction, and must not be lent again.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_reads_are_repeated_on_other_connections() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let direct = open(&Target::parse(&database, None).unwrap()).await;
    insist(&direct, 0).await;
    direct.close().await;
    drop(direct);
    let cutter = Cutter::start(server, &database).await;
    let target = Target::parse(&cutter.url, None).unwrap();
    let options = Options { readers: 1, ..Options::new(target, "frozen") };
    let opened = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None));
    let store = opened.await.unwrap().unwrap().store;
    let all = || Filter { limit: 10, ..Filter::default() };
    assert_eq!(store.list(all()).await.unwrap().tasks.len(), 1);
    cutter.freeze();
    assert_eq!(store.list(all()).await.unwrap().tasks.len(), 1);
    store.close().await;
}
