//! The timer of the lease: an owner knows of those that wait for it.

use std::sync::Arc;
use std::time::Duration;

use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::PostgresServer;
use uuid::Uuid;

use crate::connection::open;
use crate::lease::{Ownership, Replica, acquire, keep, sync};
use crate::{Options, Target, open_connections};

/// Longest wait for a state.
const LIMIT: Duration = Duration::from_secs(60);
/// No renewal is due within a test.
const INTERVAL: Duration = Duration::from_secs(3600);

fn replica(name: &str) -> Replica {
    Replica { id: Uuid::new_v4(), name: name.to_owned(), version: "0.1.0".to_owned(), address: String::new() }
}

async fn until(what: &str, mut held: impl FnMut() -> bool) {
    let reached = async {
        while !held() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, reached).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_knows_of_a_new_standby() {
    let server = PostgresServer::shared();
    let url = server.database().unwrap();
    let target = Target::parse(&url, None).unwrap();
    drop(open_connections(Options::new(target.clone(), "schema")).unwrap());

    let owner = replica("owner");
    let session = open(&target, owner.id).await.unwrap();
    let ownership = Arc::new(Ownership::default());
    let on_wait: crate::OnWait = Arc::new(|_| {});
    acquire(&session, &owner, None, &on_wait, &mut 0).await.unwrap();
    sync(&session, owner.id, &ownership).await.unwrap();
    assert!(!ownership.has_rivals());
    let kept =
        spawn("lease", OnExit::Done, keep(target.clone(), owner.clone(), Arc::clone(&ownership), INTERVAL));
    // The last statement of a renewal.
    let renewed = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rota-lease {}'
            AND state = 'idle' AND query LIKE 'DELETE FROM replicas%'",
        owner.id
    );
    until("the first renewal", || server.sql(&url, &renewed).unwrap() == "1").await;
    assert!(!ownership.has_rivals());

    let standby = replica("standby");
    let other = open(&target, standby.id).await.unwrap();
    let waits = spawn("standby", OnExit::Done, async move {
        let _ = acquire(&other, &standby, None, &on_wait, &mut 0).await;
    });
    until("the owner knows of the standby", || ownership.has_rivals()).await;
    waits.abort();
    kept.abort();
}
