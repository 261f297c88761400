//! Owners of one database after each other: one that was replaced changes nothing, whatever it believes.

use std::sync::Arc;
use std::time::Duration;

use rota_store::{Error, Filter, Reply, Store};
use rota_store_postgres::{Options, Owner, Postgres, Target};
use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::PostgresServer;
use tokio::sync::watch;

use crate::cutter::Cutter;
use crate::doubt::{create, open};

/// Longest wait for a state.
const LIMIT: Duration = Duration::from_secs(60);
const EXPIRE: &str = "UPDATE rota.replicas SET expires = clock_timestamp() - interval '1 second'
    WHERE id IN (SELECT owner FROM rota.shards)";

fn target() -> (String, Target) {
    let database = PostgresServer::shared().database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    (database, target)
}

/// Returns an owner of one task whose shard another replica has taken, as if it had been frozen beyond its lease: it does not know,
/// and nothing notifies it, as a replica that begins to wait does.
async fn replaced() -> (Target, Arc<Postgres>) {
    let (database, target) = target();
    let first = open(&target).await;
    assert!(matches!(first.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    let take = format!(
        "SET search_path = rota; {EXPIRE}; SELECT new_epoch IS NOT NULL FROM acquire(0, gen_random_uuid(), 1000)"
    );
    assert_eq!(PostgresServer::shared().sql(&database, &take).unwrap(), "t");
    (target, first)
}

/// Waits until the owner knows of the replicas that wait by now: it looks for them after each renewal of its lease, and has done so once
/// the next one is made.
pub(crate) async fn owner_knows(server: &PostgresServer, database: &str) {
    let lease = "SELECT expires FROM rota.replicas JOIN rota.shards ON owner = replicas.id";
    let expires = || server.sql(database, lease).unwrap();
    for _ in 0..2 {
        let before = expires();
        let renewed = async {
            while expires() == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, renewed).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_owner_answers_nothing() {
    let (target, first) = replaced().await;
    // A call that was executed before changes nothing, and is answered from memory.
    let known = first.apply(vec![create(0)]).await;
    assert!(matches!(known, Err(Error::Deposed | Error::Closed)), "{known:?}");
    let second = open(&target).await;
    assert!(matches!(second.apply(vec![create(1)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_owner_changes_nothing() {
    let (target, first) = replaced().await;
    // Neither a write nor an answer from memory.
    let written = first.apply(vec![create(1)]).await;
    assert!(matches!(written, Err(Error::Deposed | Error::Closed)), "{written:?}");
    let confirmed = first.apply(Vec::new()).await;
    assert!(matches!(confirmed, Err(Error::Deposed | Error::Closed)), "{confirmed:?}");
    let second = open(&target).await;
    let tasks = async || second.list(Filter { limit: 10, ..Filter::default() }).await.unwrap().tasks.len();
    assert_eq!(tasks().await, 1);
    assert!(matches!(second.apply(vec![create(1)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    assert_eq!(tasks().await, 2);
}

/// Asked of the database itself: a replica that waits looks at the lease before, too.
#[tokio::test(flavor = "multi_thread")]
async fn lease_that_lasts_is_not_taken() {
    let (database, target) = target();
    let store = open(&target).await;
    let acquire = "SET search_path = rota;
        SELECT new_epoch IS NULL, left_ms > 0 FROM acquire(0, gen_random_uuid(), 1000)";
    assert_eq!(PostgresServer::shared().sql(&database, acquire).unwrap(), "t|t");
    assert!(matches!(store.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
}

/// A row that each commit updated would grow a chain of versions while an old snapshot is open.
#[tokio::test(flavor = "multi_thread")]
async fn commits_make_no_version_of_the_shard() {
    let (database, target) = target();
    let version = || {
        let version = "SELECT xmin, ctid, (SELECT count(*) FROM rota.commits) FROM rota.shards";
        let row = PostgresServer::shared().sql(&database, version).unwrap();
        let (version, commits) = row.rsplit_once('|').unwrap();
        (version.to_owned(), commits.parse::<u64>().unwrap())
    };
    let store = open(&target).await;
    let (first, before) = version();
    for number in 0..10 {
        assert!(matches!(store.apply(vec![create(number)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    }
    let (last, after) = version();
    assert!(after >= before + 10, "{after} commits");
    assert_eq!(last, first);
    store.close().await;
}

/// As a backup that is restored under a control plane that runs: its connections stay.
#[tokio::test(flavor = "multi_thread")]
async fn commit_after_a_missing_one_is_refused() {
    let (database, target) = target();
    let store = open(&target).await;
    assert!(matches!(store.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    let lose = "DELETE FROM rota.commits WHERE revision = (SELECT max(revision) FROM rota.commits)";
    PostgresServer::shared().sql(&database, lose).unwrap();
    let refused = store.apply(vec![create(1)]).await;
    assert!(matches!(refused, Err(Error::Deposed)), "{refused:?}");
}

/// An owner that a database has forgotten must not be taken for the one that it has now.
#[tokio::test(flavor = "multi_thread")]
async fn restored_database_gives_no_epoch_again() {
    let (database, target) = target();
    let server = PostgresServer::shared();
    let epoch = || server.sql(&database, "SELECT epoch FROM rota.shards").unwrap().parse::<i64>().unwrap();
    let first = open(&target).await;
    assert!(matches!(first.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    let kept = epoch();
    first.close().await;
    drop(first);
    let forgotten = open(&target).await;
    let lost = epoch();
    assert!(lost > kept);
    server.sql(&database, &format!("UPDATE rota.shards SET epoch = {kept}, owner = NULL")).unwrap();
    let next = open(&target).await;
    assert!(epoch() > lost, "{} was given out again after {lost}", epoch());
    assert!(matches!(next.apply(vec![create(1)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    let late = forgotten.apply(vec![create(2)]).await;
    assert!(matches!(late, Err(Error::Deposed | Error::Closed)), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn next_owner_waits_and_follows_a_clean_stop() {
    let (_, target) = target();
    let first = open(&target).await;
    let impatient =
        Options { patience: Some(Duration::from_millis(300)), ..Options::new(target.clone(), "b") };
    let refused = tokio::task::spawn_blocking(move || rota_store_postgres::open(impatient, None).map(drop));
    let error = refused.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("in use by the control plane \"doubt\""), "{error}");
    // One that waits sees whom it waits for, until that stops.
    let (seen, mut looks) = watch::channel(Vec::<Option<Owner>>::new());
    let waits = {
        let on_wait: rota_store_postgres::OnWait =
            Arc::new(move |owner| seen.send_modify(|seen| seen.push(owner.cloned())));
        let options = Options { on_wait, address: "here:1".to_owned(), ..Options::new(target.clone(), "c") };
        tokio::task::spawn_blocking(move || {
            rota_store_postgres::open(options, None).map(|opened| opened.store)
        })
    };
    let third = looks.wait_for(|seen| seen.len() >= 3);
    let seen = tokio::time::timeout(Duration::from_secs(60), third).await.unwrap().unwrap().clone();
    assert!(matches!(&seen[0], Some(owner) if owner.name == "doubt"));
    let replicas = first.replicas().await.unwrap();
    let names: Vec<_> = replicas.iter().map(|one| (one.name.as_str(), one.owner)).collect();
    assert_eq!(names, [("doubt", true), ("c", false)]);
    first.close().await;
    drop(first);
    let next = waits.await.unwrap().unwrap();
    assert!(matches!(next.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
}

/// An owner that left it to its lease would delay each upgrade by that.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_owner_gives_the_database_back() {
    let (database, target) = target();
    let first = open(&target).await;
    // Longer than any wait of this test, also after a renewal.
    let longer = "CREATE FUNCTION rota.longer() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.expires := clock_timestamp() + interval '1 day'; RETURN NEW; END $$;
        CREATE TRIGGER longer BEFORE UPDATE ON rota.replicas FOR EACH ROW EXECUTE FUNCTION rota.longer();
        UPDATE rota.replicas SET expires = expires";
    PostgresServer::shared().sql(&database, longer).unwrap();
    first.close().await;
    drop(first);
    let options = Options { patience: Some(Duration::from_secs(30)), ..Options::new(target, "next") };
    let opened = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None));
    let next = opened.await.unwrap().expect("it takes over").store;
    assert!(matches!(next.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    next.close().await;
}

/// Workers of an owner that cannot reach the database must find the one that can.
#[tokio::test(flavor = "multi_thread")]
async fn owner_without_database_ends_if_another_waits() {
    let (database, direct) = target();
    let cutter = Cutter::start(PostgresServer::shared(), &database).await;
    let first = open(&Target::parse(&cutter.url, None).unwrap()).await;
    let mut commits = first.commits().unwrap();
    // Alone, it waits for the database, also for longer than its lease.
    cutter.block(true);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(matches!(first.apply(vec![create(0)]).await, Err(Error::Unavailable { .. })));
    cutter.block(false);
    // Until it has its lease again, the next one would take it immediately.
    let renewed = async || {
        let replicas = first.replicas().await.unwrap_or_default();
        replicas.first().is_some_and(|owner| owner.lease > Duration::from_secs(5))
    };
    tokio::time::timeout(Duration::from_secs(60), async {
        while first.apply(vec![create(0)]).await.is_err() || !renewed().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    while commits.try_recv().is_ok() {}
    let (seen, mut looks) = watch::channel(0);
    let waits = {
        let on_wait: rota_store_postgres::OnWait = Arc::new(move |_| seen.send_modify(|count| *count += 1));
        let options = Options { on_wait, ..Options::new(direct, "second") };
        tokio::task::spawn_blocking(move || {
            rota_store_postgres::open(options, None).map(|opened| opened.store)
        })
    };
    drop(tokio::time::timeout(LIMIT, looks.wait_for(|count| *count > 0)).await.unwrap().unwrap());
    owner_knows(PostgresServer::shared(), &database).await;
    cutter.block(true);
    let second = waits.await.unwrap().unwrap();
    assert!(matches!(second.apply(vec![create(1)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    let ended = tokio::time::timeout(Duration::from_secs(60), commits.recv()).await;
    assert!(ended.unwrap().is_none(), "the writer has ended");
    let late = first.apply(vec![create(2)]).await;
    assert!(matches!(late, Err(Error::Deposed | Error::Closed)), "{late:?}");
}

/// Connections stay open without answers, as behind a proxy, and a commit waits for its own for 30 seconds: the lease ends earlier, and
/// the next owner takes workers that stay with this one for lost.
#[tokio::test(flavor = "multi_thread")]
async fn owner_without_answers_ends_with_its_lease() {
    let (database, direct) = target();
    let server = PostgresServer::shared();
    let cutter = Cutter::start(server, &database).await;
    let first = open(&Target::parse(&cutter.url, None).unwrap()).await;
    let mut commits = first.commits().unwrap();
    let (seen, mut looks) = watch::channel(0);
    let waits = {
        let on_wait: rota_store_postgres::OnWait = Arc::new(move |_| seen.send_modify(|count| *count += 1));
        let options = Options { on_wait, ..Options::new(direct, "second") };
        tokio::task::spawn_blocking(move || {
            rota_store_postgres::open(options, None).map(|opened| opened.store)
        })
    };
    drop(tokio::time::timeout(LIMIT, looks.wait_for(|count| *count > 0)).await.unwrap().unwrap());
    owner_knows(server, &database).await;
    while commits.try_recv().is_ok() {}
    cutter.silence();
    let under_way = spawn("commit", OnExit::Done, {
        let first = Arc::clone(&first);
        async move { first.apply(vec![create(0)]).await }
    });
    let ended = tokio::time::timeout(Duration::from_secs(25), commits.recv()).await;
    cutter.block(true);
    assert!(ended.expect("it has ended before the commit's own limit").is_none());
    let refused = under_way.await.unwrap();
    assert!(matches!(refused, Err(Error::LeaseLost)), "{refused:?}");
    let second = waits.await.unwrap().unwrap();
    assert!(matches!(second.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_openings_migrate_once() {
    let (database, target) = target();
    let openings: Vec<_> = (0..8)
        .map(|_| {
            let options = Options { patience: Some(Duration::ZERO), ..Options::new(target.clone(), "eight") };
            tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None))
        })
        .collect();
    let mut opened = Vec::new();
    for opening in openings {
        match opening.await.unwrap() {
            Ok(store) => opened.push(store),
            Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
        }
    }
    assert_eq!(opened.len(), 1);
    let versions = PostgresServer::shared()
        .sql(&database, "SELECT version FROM rota.migrations ORDER BY version")
        .unwrap();
    assert_eq!(versions, "1\n2\n3\n4\n5\n6\n7\n8\n9");
    drop(opened);
    // A newer schema is not touched.
    PostgresServer::shared().sql(&database, "INSERT INTO rota.migrations (version) VALUES (99)").unwrap();
    let options = Options::new(target, "old");
    let refused = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None).map(drop));
    assert!(refused.await.unwrap().unwrap_err().to_string().contains("newer version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_databases_are_explained() {
    let server = PostgresServer::start("fsync = off").unwrap();
    let socket = server.socket().display().to_string().replace('/', "%2F");
    let read_only = server.database().unwrap();
    let name = read_only.rsplit('/').next().unwrap();
    let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    server.sql("postgres", &set).unwrap();
    for (url, why) in [
        (server.database().unwrap(), "fsync=off"),
        (read_only, "does not allow writes"),
        (format!("postgres://rota@{socket}/missing"), "does not exist"),
        (format!("postgres://stranger:hunter2@{socket}/postgres"), "stranger"),
        ("postgres://rota:hunter2@127.0.0.1:1/rota".to_owned(), "no connection to the database"),
    ] {
        let options = Options::new(Target::parse(&url, None).unwrap(), "unusable");
        let refused = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None).map(drop));
        let error = refused.await.unwrap().unwrap_err();
        let Error::Unavailable { message, hint } = &error else { panic!("{error:?}") };
        assert!(message.contains(why) && !hint.is_empty(), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
