//! The state of the database, as a user without special rights sees it.

use std::time::Duration;

use rota_store::Store;
use rota_store_postgres::Target;
use rota_testkit::postgres::PostgresServer;

use crate::doubt::{create, open};

#[tokio::test(flavor = "multi_thread")]
async fn user_without_rights_sees_the_status() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let name = database.rsplit('/').next().unwrap();
    let role = format!("plain_{name}");
    server
        .sql(&database, &format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {name} TO {role}"))
        .unwrap();
    let target = Target::parse(&database.replacen("rota@", &format!("{role}@"), 1), None).unwrap();
    let store = open(&target).await;
    let status = store.database_status().await.unwrap().unwrap();
    let version: u32 = status.version.split('.').next().unwrap().parse().unwrap();
    assert!(version >= 15 && status.migration >= 1, "{status:?}");
    assert!(status.fsync && status.full_page_writes && status.synchronous_commit == "on", "{status:?}");
    assert!(
        status.size_bytes > 1 << 20 && status.connections >= 2 && status.max_connections == 300,
        "{status:?}"
    );
    assert!(!status.commit_latency.is_zero() && status.now.0 > 0, "{status:?}");
    assert_eq!(status.standbys, rota_store::Standbys::default());
    assert!(matches!(store.apply(vec![create(0)]).await.unwrap()[..], [Ok(_)]));
    let later = store.database_status().await.unwrap().unwrap();
    assert_eq!(later.revision, store.revision().await.unwrap());
    assert!(later.revision > status.revision && later.epoch == status.epoch, "{later:?}");
    store.close().await;
    let next = open(&target).await;
    let taken = next.database_status().await.unwrap().unwrap();
    assert!(taken.epoch > later.epoch, "{taken:?}");
    next.close().await;
}

/// Counts of a long queue are what a takeover takes its time for: the control plane makes them once, and the store none before.
#[tokio::test(flavor = "multi_thread")]
async fn opening_counts_no_queue() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    open(&target).await.close().await;
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'rota-%'";
    // A session reports what it has done when it ends.
    let ended = async || {
        while server.sql(&database, sessions).unwrap() != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let counts = || {
        let sql = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'tasks_ready'";
        server.sql(&database, sql).unwrap().parse::<u64>().unwrap()
    };
    ended().await;
    let before = counts();
    open(&target).await.close().await;
    ended().await;
    assert_eq!(counts(), before);
}
