//! Space of removed records is used again: tables do not grow while as much is removed as is written.

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

/// Creates tasks and ends them.
async fn fill(store: &Postgres, round: u128) {
    let numbers: Vec<_> = (round * TASKS..(round + 1) * TASKS).collect();
    for numbers in numbers.chunks(BATCH) {
        let created = store.apply(numbers.iter().map(|number| create(*number)).collect()).await.unwrap();
        assert!(created.iter().all(|reply| matches!(reply, Ok(Reply::Created(_)))));
        let cancel = |number: &u128| Command::Task {
            namespace: Namespace::new("n").unwrap(),
            id: TaskId(Uuid::from_u128(number + 1)),
            command: task::Command::Update {
                priority: None,
                labels: None,
                desired: Some(Desired::Cancelled),
                reason: String::new(),
            },
        };
        let ended = store.apply(numbers.iter().map(cancel).collect()).await.unwrap();
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    }
}

/// Removes all tasks that have ended, by a time that is far in the future.
async fn prune(store: &Postgres) {
    let prune = Prune { ended_before: Some(Timestamp(1 << 52)), left_before: Timestamp(0), limit: 200 };
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
        prune(&store).await;
        assert_eq!(rows(), 0);
        // As autovacuum does: no session of the store keeps a snapshot that holds it back.
        server.sql(&database, "VACUUM rota.events").unwrap();
        fill(&store, round).await;
    }
    // Space that was not used again would have made it five times as large.
    assert!(size() < 2 * first, "{} bytes, and {first} at first", size());
    store.close().await;
}
