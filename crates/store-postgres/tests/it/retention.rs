//! Removal of records: their space is used again, so that tables do not grow while as much is removed as is written, and damaged ones
//! do not end it.

use rota_core::task::{self, Desired};
use rota_core::{Namespace, TaskId, Timestamp};
use rota_store::{Command, Prune, Reply, Store};
use rota_store_postgres::{Postgres, Target};
use rota_testkit::postgres::PostgresServer;
use uuid::Uuid;

use crate::doubt::{create, open};

/// Tasks of a round, each with two rows in the log.
const TASKS: u128 = 2000;
const BATCH: usize = 500;
/// Rounds after the first, each of which writes as much as that.
const ROUNDS: u128 = 4;

fn cancel(number: u128) -> Command {
    Command::Task {
        namespace: Namespace::new("n").unwrap(),
        id: TaskId(Uuid::from_u128(number + 1)),
        command: task::Command::Update {
            priority: None,
            labels: None,
            desired: Some(Desired::Cancelled),
            reason: String::new(),
        },
    }
}

/// Creates tasks and ends them.
async fn fill(store: &Postgres, round: u128) {
    let numbers: Vec<_> = (round * TASKS..(round + 1) * TASKS).collect();
    for numbers in numbers.chunks(BATCH) {
        let created = store.apply(numbers.iter().map(|number| create(*number)).collect()).await.unwrap();
        assert!(created.iter().all(|reply| matches!(reply, Ok(Reply::Created(_)))));
        let ended = store.apply(numbers.iter().map(|number| cancel(*number)).collect()).await.unwrap();
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    }
}

/// Removes all that has ended, by a time that is far in the future.
async fn prune(store: &Postgres, limit: usize) {
    let later = Timestamp(1 << 52);
    let prune = Prune { ended_before: Some(later), left_before: later, limit };
    loop {
        match store.apply(vec![Command::Prune(prune)]).await.unwrap().remove(0) {
            Ok(Reply::Pruned { more: true, .. }) => {}
            Ok(Reply::Pruned { .. }) => return,
            other => panic!("no pruning: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_log_is_written_over() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let store = open(&Target::parse(&database, None).unwrap()).await;
    drop(store.commits());
    let number = |sql: &str| server.sql(&database, sql).unwrap().parse::<u64>().unwrap();
    let size = || number("SELECT pg_total_relation_size('rota.events')");
    let rows = || number("SELECT count(*) FROM rota.events");
    fill(&store, 0).await;
    assert!(u128::from(rows()) >= 2 * TASKS);
    let first = size();
    for round in 1..=ROUNDS {
        prune(&store, 200).await;
        assert_eq!(rows(), 0);
        // As autovacuum does: no session of the store keeps a snapshot that holds it back.
        server.sql(&database, "VACUUM rota.events").unwrap();
        fill(&store, round).await;
    }
    // Space that was not used again would have made it five times as large.
    assert!(size() < 2 * first, "{} bytes, and {first} at first", size());
    store.close().await;
}

/// Names that are not valid any more, as after a downgrade, on a whole page of each kind.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_names_stop_no_prune() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let store = open(&Target::parse(&database, None).unwrap()).await;
    drop(store.commits());
    store.apply((0..5).map(create).collect()).await.unwrap();
    store.apply((0..5).map(cancel).collect()).await.unwrap();
    // The keys outlive their tasks.
    let ended = Prune { ended_before: Some(Timestamp(1 << 52)), left_before: Timestamp(0), limit: 5 };
    store.apply(vec![Command::Prune(ended)]).await.unwrap();
    for sql in [
        "UPDATE rota.idempotency_keys SET namespace = 'N N' WHERE key IN ('key 0', 'key 1', 'key 2')",
        "INSERT INTO rota.threads (shard, namespace, name, idle, record) VALUES (0, 'N N', 'a', 0, ''),
            (0, 'N N', 'b', 0, ''), (0, 'N N', 'c', 0, ''), (0, 'n', 'd', 1, '')",
        "INSERT INTO rota.sessions (shard, namespace, worker, epoch, open, ended, record)
            VALUES (0, 'n', 'A A', 1, false, 0, ''), (0, 'n', 'B B', 1, false, 0, ''),
            (0, 'n', 'C C', 1, false, 0, ''), (0, 'n', 'd', 1, false, 1, '')",
    ] {
        server.sql(&database, sql).unwrap();
    }
    let names = |table: &str, name: &str| {
        let sql = format!("SELECT string_agg({name}, ', ' ORDER BY {name}) FROM rota.{table}");
        server.sql(&database, &sql).unwrap()
    };
    assert_eq!(names("idempotency_keys", "key"), "key 0, key 1, key 2, key 3, key 4");
    prune(&store, 3).await;
    assert_eq!(names("idempotency_keys", "key"), "key 0, key 1, key 2");
    assert_eq!(names("threads", "name"), "a, b, c");
    assert_eq!(names("sessions", "worker"), "A A, B B, C C");
    store.close().await;
}
