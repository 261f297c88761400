//! The lease: an owner knows of those that wait for it, also if they have ended and may come back; one that is frozen is replaced.

use std::sync::Arc;
use std::time::Duration;

use rota_core::time::micros;
use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::PostgresServer;
use uuid::Uuid;

use crate::clock::since_boot;
use crate::connection::open;
use crate::lease::{Replica, acquire, end_lease, keep, register, renew, sync, transfer_name};
use crate::ownership::{Ownership, RIVAL_MEMORY};
use crate::rows::SHARD;
use crate::session::Session;
use crate::sql;
use crate::transfer::PATIENT;
use crate::{OnWait, Options, Target, open_connections};

/// Longest wait for a state.
const LIMIT: Duration = Duration::from_secs(60);
/// No renewal is due within a test.
const INTERVAL: Duration = Duration::from_secs(3600);

pub(super) fn replica(name: &str) -> Replica {
    Replica { id: Uuid::new_v4(), name: name.to_owned(), version: "0.1.0".to_owned(), address: String::new() }
}

pub(super) fn on_wait() -> OnWait {
    Arc::new(|_| {})
}

/// Returns the URL of a database with the schema, which no replica owns, and its target.
pub(super) fn database() -> (String, Target) {
    let url = PostgresServer::shared().database().unwrap();
    let target = Target::parse(&url, None).unwrap();
    drop(open_connections(Options::new(target.clone(), "schema")).unwrap());
    (url, target)
}

/// Sets the rest of the owner's lease.
fn set_lease(url: &str, rest: &str) {
    let set = format!(
        "UPDATE rota.replicas SET expires = clock_timestamp() + interval '{rest}'
            WHERE id IN (SELECT owner FROM rota.shards)"
    );
    PostgresServer::shared().sql(url, &set).unwrap();
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
    let (server, (url, target)) = (PostgresServer::shared(), database());
    let owner = replica("owner");
    let session = open(&target, owner.id).await.unwrap();
    let ownership = Arc::new(Ownership::default());
    acquire(&session, &owner, None, &on_wait(), None, &mut 0).await.unwrap();
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
        let _ = acquire(&other, &standby, None, &on_wait(), None, &mut 0).await;
    });
    until("the owner knows of the standby", || ownership.has_rivals()).await;
    waits.abort();
    kept.abort();
}

/// One that is replaced in an upgrade: the next one may start while the owner is cut off from the database.
#[tokio::test]
async fn standby_that_ended_may_come_back() {
    let (_, target) = database();
    let owner = replica("owner");
    let session = open(&target, owner.id).await.unwrap();
    let ownership = Ownership::default();
    acquire(&session, &owner, None, &on_wait(), None, &mut 0).await.unwrap();
    let standby = replica("standby");
    register(&session, &standby, sql::REGISTER).await.unwrap();
    sync(&session, owner.id, &ownership).await.unwrap();
    assert!(ownership.has_rivals());
    session.client.execute(sql::UNREGISTER, &[&standby.id]).await.unwrap();
    sync(&session, owner.id, &ownership).await.unwrap();
    assert!(ownership.has_rivals());
    assert!(!ownership.has_rivals_at(since_boot() + micros(RIVAL_MEMORY) + 1));
}

/// In a rolling upgrade of a single replica the next one waits for the one that it replaces, which does not come back.
#[tokio::test(flavor = "multi_thread")]
async fn replaced_owner_is_no_rival() {
    let (url, target) = database();
    for name in ["one", "next"] {
        let (owner, ownership) = (replica(name), Ownership::default());
        let session = open(&target, owner.id).await.unwrap();
        let on_wait: OnWait = {
            let url = url.clone();
            Arc::new(move |_| set_lease(&url, "-1 second"))
        };
        let mut seen = 0;
        let taken = acquire(&session, &owner, None, &on_wait, None, &mut seen);
        tokio::time::timeout(LIMIT, taken).await.expect("it takes over").unwrap();
        sync(&session, owner.id, &ownership).await.unwrap();
        assert!(!ownership.has_rivals(), "{name}");
        set_lease(&url, "1 hour");
    }
}

/// The clock of the database was set back by a day after the last renewal of a replica of a newer version.
#[tokio::test]
async fn vanished_standby_from_the_future_is_no_rival() {
    let (_, target) = database();
    let owner = replica("owner");
    let session = open(&target, owner.id).await.unwrap();
    let vanished = Replica { version: "0.2.0".to_owned(), ..replica("vanished") };
    register(&session, &vanished, sql::REGISTER).await.unwrap();
    let later = "UPDATE replicas SET expires = expires + interval '1 day'";
    session.client.batch_execute(later).await.unwrap();
    let on_wait: OnWait = Arc::new(|owner| assert!(owner.is_some(), "the shard is left to it"));
    acquire(&session, &owner, None, &on_wait, None, &mut 0).await.unwrap();
    let ownership = Ownership::default();
    sync(&session, owner.id, &ownership).await.unwrap();
    assert!(!ownership.has_rivals());
    assert_eq!(session.client.execute(sql::FORGET_REPLICAS, &[]).await.unwrap(), 1);
}

/// Its row was removed after a step of the clock, while it waited for the shard.
#[tokio::test]
async fn owner_without_a_row_registers_again() {
    let (_, target) = database();
    let owner = replica("owner");
    let session = open(&target, owner.id).await.unwrap();
    acquire(&session, &owner, None, &on_wait(), None, &mut 0).await.unwrap();
    session.client.execute(sql::UNREGISTER, &[&owner.id]).await.unwrap();
    assert!(renew(&session, &owner, &Ownership::default()).await.unwrap());
    let row = session.client.query_one(sql::OWNER, &[&SHARD]).await.unwrap();
    assert_eq!(row.get::<_, Option<String>>(1).as_deref(), Some("owner"));
}

/// It was frozen, and its successor has removed its row.
#[tokio::test]
async fn replaced_owner_does_not_register_again() {
    let (url, target) = database();
    let replaced = replica("replaced");
    let session = open(&target, replaced.id).await.unwrap();
    acquire(&session, &replaced, None, &on_wait(), None, &mut 0).await.unwrap();
    set_lease(&url, "-1 second");
    let (owner, ownership) = (replica("owner"), Ownership::default());
    let other = open(&target, owner.id).await.unwrap();
    acquire(&other, &owner, None, &on_wait(), None, &mut 0).await.unwrap();
    assert!(!renew(&session, &replaced, &Ownership::default()).await.unwrap());
    assert!(sync(&other, owner.id, &ownership).await.unwrap());
    assert!(!ownership.has_rivals());
}

/// A replica that waits was suspended between its look and what it does then: it has seen no renewal for as long.
#[tokio::test]
async fn lease_renewed_since_the_look_is_not_ended() {
    let (url, target) = database();
    let owner = replica("owner");
    let session = open(&target, owner.id).await.unwrap();
    acquire(&session, &owner, None, &on_wait(), None, &mut 0).await.unwrap();
    let look = async || {
        session.client.query_one(sql::OWNER, &[&SHARD]).await.unwrap().get::<_, Option<i64>>(5).unwrap()
    };
    let seen = look().await;
    set_lease(&url, "1 day");
    assert!(!end_lease(&session, owner.id, seen).await.unwrap(), "it was renewed");
    assert!(end_lease(&session, owner.id, look().await).await.unwrap());
    // The clock of the database agrees: it was not set back.
    assert!(!end_lease(&session, owner.id, look().await).await.unwrap(), "it is over");
}

/// Waits until a replica has taken the shard over from an owner whose lease is over, and one of whose sessions holds its lock.
async fn take_over_from(url: &str, target: &Target, holding: &Session) {
    holding.client.batch_execute("BEGIN; SELECT 1 FROM shards FOR UPDATE").await.unwrap();
    set_lease(url, "-1 second");
    let next = replica("next");
    let other = open(target, next.id).await.unwrap();
    let (on_wait, mut seen) = (on_wait(), 0);
    let taken = acquire(&other, &next, None, &on_wait, None, &mut seen);
    tokio::time::timeout(LIMIT, taken).await.expect("it takes over").unwrap();
    assert!(holding.client.batch_execute("COMMIT").await.is_err());
}

/// The server waits for the rest of a commit, whose lock it keeps meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_frozen_owner_are_ended() {
    let (url, target) = database();
    let frozen = replica("frozen");
    let session = open(&target, frozen.id).await.unwrap();
    acquire(&session, &frozen, None, &on_wait(), None, &mut 0).await.unwrap();
    session.client.batch_execute("SET idle_in_transaction_session_timeout = 0").await.unwrap();
    take_over_from(&url, &target, &session).await;
}

/// The machine of an import has vanished: the server notices that after hours, since an import may be slow.
#[tokio::test(flavor = "multi_thread")]
async fn session_of_a_vanished_import_is_ended() {
    let (url, target) = database();
    let vanished = replica("vanished");
    let session = open(&target, vanished.id).await.unwrap();
    acquire(&session, &vanished, None, &on_wait(), None, &mut 0).await.unwrap();
    let import = Session::open(&target, &transfer_name(vanished.id)).await.unwrap();
    import.client.batch_execute(PATIENT).await.unwrap();
    take_over_from(&url, &target, &import).await;
}
