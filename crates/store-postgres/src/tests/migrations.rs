//! Migration of databases that earlier versions have filled.

use std::sync::Arc;
use std::time::Duration;

use rota_core::workflow::Workflow;
use rota_core::{Namespace, WorkflowId};
use rota_store::codec::{decode, encode};
use rota_store::{Backend, Changes, DocumentKey, DocumentKind, Error};
use rota_testkit::postgres::PostgresServer;
use uuid::Uuid;

use crate::migrate::to_latest;
use crate::rows::SHARD;
use crate::session::Session;
use crate::{Admission, Options, Target, open_connections};

/// What the version before the marks of reruns has left.
const DOWNGRADE: &str = "DROP TABLE search_tasks, search_position; DELETE FROM migrations WHERE version >= 7";

#[tokio::test]
async fn workflows_that_were_run_again_are_marked() {
    let server = PostgresServer::shared();
    let target = Target::parse(&server.database().unwrap(), None).unwrap();
    drop(open_connections(Options::new(target.clone(), "new")).unwrap());
    let session = Session::open(&target, "earlier").await.unwrap();
    let id = |number| WorkflowId(Uuid::from_u128(number));
    let workflow = |number, rerun_of: Option<u128>| Workflow {
        rerun_of: rerun_of.map(id),
        ..Workflow::new(id(number), Namespace::new("n").unwrap())
    };
    // The first one was run again twice, the third one once.
    for (key, one) in
        (1_i64..).zip([workflow(1, None), workflow(2, Some(1)), workflow(3, Some(1)), workflow(4, Some(3))])
    {
        let insert = "INSERT INTO workflows (shard, key, id, namespace, state, record) VALUES ($1, $2, $3, 'n', 7, $4)";
        let record = encode(&one).unwrap();
        session.client.execute(insert, &[&SHARD, &key, &one.id.0, &record]).await.unwrap();
    }
    session.client.batch_execute(DOWNGRADE).await.unwrap();
    drop(open_connections(Options::new(target, "again")).unwrap());
    let rows = session.client.query("SELECT record FROM workflows ORDER BY key", &[]).await.unwrap();
    let reruns: Vec<_> = rows.iter().map(|row| decode::<Workflow>(row.get(0)).unwrap().rerun).collect();
    assert_eq!(reruns, [Some(id(3)), None, Some(id(4)), None]);
}

/// It would write the workflows without their marks.
#[tokio::test]
async fn marking_reruns_ends_the_earlier_owner() {
    let server = PostgresServer::shared();
    let target = Target::parse(&server.database().unwrap(), None).unwrap();
    let (mut earlier, _readers) = open_connections(Options::new(target.clone(), "earlier")).unwrap();
    let session = Session::open(&target, "downgrade").await.unwrap();
    session.client.batch_execute(DOWNGRADE).await.unwrap();
    let (given, owner) = shard(&session).await;
    assert!(owner.is_some());
    // As a standby that lost the commits of all epochs.
    session.client.batch_execute("UPDATE shards SET epoch = 1").await.unwrap();
    to_latest(&session.client).await.unwrap();
    let (epoch, owner) = shard(&session).await;
    assert!(epoch > given && owner.is_none(), "{epoch} after {given}, {owner:?}");
    let options = Options { patience: Some(Duration::from_secs(30)), ..Options::new(target, "upgraded") };
    let upgraded = open_connections(options).expect("it takes the database over");
    let changes = Changes { before: 0, revision: 1, ..Changes::default() };
    let late = tokio::task::spawn_blocking(move || earlier.write(&changes)).await.unwrap();
    assert!(matches!(late, Err(Error::Deposed)), "{late:?}");
    drop(upgraded);
}

/// One with the wrong key for example.
#[tokio::test]
async fn refused_replica_migrates_nothing() {
    let server = PostgresServer::shared();
    let target = Target::parse(&server.database().unwrap(), None).unwrap();
    let (_earlier, _readers) = open_connections(Options::new(target.clone(), "earlier")).unwrap();
    let session = Session::open(&target, "downgrade").await.unwrap();
    session.client.batch_execute(DOWNGRADE).await.unwrap();
    let before = shard(&session).await;
    let refused = open_connections(refusing(target)).map(drop);
    assert!(matches!(refused, Err(Error::Deposed)), "{refused:?}");
    let row = session.client.query_one("SELECT max(version) FROM migrations", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 6);
    assert_eq!(shard(&session).await, before);
}

/// Another one may have migrated it meanwhile, and have stored its key.
#[tokio::test]
async fn replica_is_checked_after_the_first_migration() {
    let server = PostgresServer::shared();
    let target = Target::parse(&server.database().unwrap(), None).unwrap();
    let refused = open_connections(refusing(target.clone())).map(drop);
    assert!(matches!(refused, Err(Error::Deposed)), "{refused:?}");
    let session = Session::open(&target, "reader").await.unwrap();
    assert_eq!(shard(&session).await.1, None, "it has taken nothing");
}

/// What is read of it for the admission may be in a format of that version.
#[tokio::test]
async fn newer_schema_is_refused_before_the_admission() {
    let server = PostgresServer::shared();
    let target = Target::parse(&server.database().unwrap(), None).unwrap();
    drop(open_connections(Options::new(target.clone(), "newer")).unwrap());
    let session = Session::open(&target, "upgrade").await.unwrap();
    session.client.batch_execute("INSERT INTO migrations (version) VALUES (99)").await.unwrap();
    let refused = open_connections(refusing(target)).map(drop);
    assert!(
        matches!(&refused, Err(Error::Unavailable { message, .. }) if message.contains("newer version")),
        "{refused:?}"
    );
}

/// Returns options of a replica that the database does not fit.
fn refusing(target: Target) -> Options {
    let document = DocumentKey {
        kind: DocumentKind::SecretKey,
        namespace: Namespace::new("n").unwrap(),
        name: "key".to_owned(),
    };
    let admission = Admission { document, check: Arc::new(|_| Err(Error::Deposed)) };
    Options { admission: Some(admission), ..Options::new(target, "refused") }
}

/// Returns the epoch and the owner of the shard.
async fn shard(session: &Session) -> (i64, Option<Uuid>) {
    let row = session.client.query_one("SELECT epoch, owner FROM shards", &[]).await.unwrap();
    (row.get(0), row.get(1))
}
