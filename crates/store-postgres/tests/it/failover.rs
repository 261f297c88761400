//! A primary with a standby: pauses of it, waits for it that are cancelled, and failovers to it.

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use rota_store::{Error, Filter, Reply, Standbys, Store};
use rota_store_postgres::{OnWait, Options, Postgres, Target};
use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::{PostgresServer, Stop};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::doubt::{check, create, open};
use crate::fence::owner_knows;

const LIMIT: Duration = Duration::from_secs(180);
/// Time of an outage, longer than a lease.
const OUTAGE: Duration = Duration::from_secs(13);

/// What the primary counts once its standby has caught up.
const SYNCHRONOUS: Standbys = Standbys { synchronous: 1, asynchronous: 0, unknown: 0 };

/// A control plane that waits for the database, of which the owner knows. It ends with the test, also with one that fails.
struct Rival {
    stop: DropGuard,
    opened: JoinHandle<Result<(), Error>>,
}

impl Rival {
    /// Starts one that waits for a database of a server, next to its owner.
    async fn start(target: &Target, server: &PostgresServer, database: &str) -> Self {
        let (looks, mut looked) = watch::channel(0);
        let on_wait: OnWait = Arc::new(move |_| looks.send_modify(|looks| *looks += 1));
        let stop = CancellationToken::new();
        let options = Options { on_wait, stop: stop.clone(), ..Options::new(target.clone(), "rival") };
        let stop = stop.drop_guard();
        let opened = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None).map(drop));
        drop(
            tokio::time::timeout(LIMIT, looked.wait_for(|looks| *looks > 0))
                .await
                .expect("it looks")
                .unwrap(),
        );
        owner_knows(server, database).await;
        Self { stop, opened }
    }

    async fn stop(self) {
        drop(self.stop);
        let ended = tokio::time::timeout(LIMIT, self.opened).await.expect("it ends").unwrap();
        assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_standby_does_not_end_the_owner() {
    let primary = PostgresServer::start("").unwrap();
    let database = primary.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let store = open(&target).await;
    let rival = Rival::start(&target, &primary, &database).await;
    let standby = primary.synchronous_standby().unwrap();
    let counted = async {
        while store.database_status().await.unwrap().unwrap().standbys != SYNCHRONOUS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, counted).await.expect("it is counted");
    let alone = Target::parse(&standby.url(database.rsplit('/').next().unwrap()), None).unwrap();
    let refused = tokio::task::spawn_blocking(move || {
        rota_store_postgres::open(Options::new(alone, "alone"), None).map(drop)
    });
    let refused = refused.await.unwrap();
    assert!(
        matches!(&refused, Err(Error::Unavailable { message, hint })
            if message.contains("does not allow writes") && hint.contains("name the primary")),
        "{refused:?}"
    );
    standby.stop(Stop::Fast).unwrap();
    tokio::time::sleep(OUTAGE).await;
    standby.resume().unwrap();
    acknowledged(&store, 0).await;
    rival.stop().await;
    store.close().await;
}

/// Ends the wait of a commit for the standby, which then succeeds with a warning, as an administrator or a timeout does. Returns the
/// process of the session, which is another one than `before`; none if `call` ends first.
async fn cancel_wait<T>(
    primary: &PostgresServer,
    session: &str,
    before: &str,
    call: &JoinHandle<T>,
) -> Option<String> {
    let waiting = format!(
        "SELECT pid FROM pg_stat_activity
            WHERE application_name LIKE '{session}%' AND wait_event = 'SyncRep' AND pid <> {before}"
    );
    let found = async {
        loop {
            let pid = primary.sql("postgres", &waiting).unwrap();
            if !pid.is_empty() {
                return Some(pid);
            }
            if call.is_finished() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let pid = tokio::time::timeout(LIMIT, found).await.expect("a commit waits")?;
    assert_eq!(primary.sql("postgres", &format!("SELECT pg_cancel_backend({pid})")).unwrap(), "t");
    Some(pid)
}

/// End of an input: stops a standby when it is reached.
struct StopsAtEnd(Arc<PostgresServer>);

impl Read for StopsAtEnd {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.stop(Stop::Fast).unwrap();
        Ok(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_waits_for_the_standby_acknowledge_nothing() {
    let primary = PostgresServer::start("").unwrap();
    let (database, empty) = (primary.database().unwrap(), primary.database().unwrap());
    let standby = Arc::new(primary.synchronous_standby().unwrap());
    let target = Target::parse(&database, None).unwrap();
    let store = open(&target).await;
    standby.stop(Stop::Fast).unwrap();
    let writer = Arc::clone(&store);
    let applied = spawn("applied", OnExit::Done, async move { writer.apply(vec![create(0)]).await });
    // That of the commit, then those that raise the epoch to find out what has become of it.
    let early = "it was answered without the standby";
    let commit = cancel_wait(&primary, "rota-writer", "0", &applied).await.expect(early);
    let first = cancel_wait(&primary, "rota-writer", &commit, &applied).await.expect(early);
    let again = cancel_wait(&primary, "rota-writer", &first, &applied).await;
    standby.resume().unwrap();
    let answer = tokio::time::timeout(LIMIT, applied).await.expect("it answers").unwrap();
    // One that waits for long is refused as in doubt, also before the last attempt.
    assert!(
        matches!(answer.as_deref(), Err(Error::Unavailable { .. }))
            || again.is_some() && matches!(answer.as_deref(), Ok([Ok(Reply::Created(_))])),
        "{again:?}, {answer:?}"
    );
    store.close().await;
    drop(store);
    check(&target, 1).await;

    let source = target.clone();
    let exported = tokio::task::spawn_blocking(move || {
        let mut lines = Vec::<u8>::new();
        rota_store_postgres::export(Options::new(source, "export"), &mut lines).map(|_| lines)
    });
    let lines = exported.await.unwrap().unwrap();
    let target = Target::parse(&empty, None).unwrap();
    let imported = tokio::task::spawn_blocking(move || {
        // The last line is read apart from its end.
        let mut lines = BufReader::with_capacity(16, lines.as_slice().chain(StopsAtEnd(standby)));
        rota_store_postgres::import(Options::new(target, "import"), &mut lines)
    });
    cancel_wait(&primary, "rota-transfer", "0", &imported).await.expect(early);
    let refused = imported.await.unwrap();
    assert!(
        matches!(&refused, Err(Error::Unavailable { message, .. }) if message.contains("synchronous standby")),
        "{refused:?}"
    );
}

/// Returns a database of two servers.
fn both(primary: &PostgresServer, standby: &PostgresServer, database: &str) -> Target {
    let folder = |server: &PostgresServer| server.socket().display().to_string().replace('/', "%2F");
    let url = database.replacen(&folder(primary), &format!("{},{}", folder(primary), folder(standby)), 1);
    Target::parse(&url, None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn synchronous_failover_loses_nothing() {
    let primary = Arc::new(PostgresServer::start("").unwrap());
    let database = primary.database().unwrap();
    let standby = Arc::new(primary.synchronous_standby().unwrap());
    let target = both(&primary, &standby, &database);
    let mut store = open(&target).await;
    let (count, mut failing) = (300, None);
    for number in 0..count {
        if number == 100 {
            let (primary, standby) = (Arc::clone(&primary), Arc::clone(&standby));
            failing = Some(tokio::task::spawn_blocking(move || {
                primary.stop(Stop::Immediate).unwrap();
                standby.promote().unwrap();
            }));
        }
        // Until it is acknowledged, and not again after that.
        let acknowledged = async {
            loop {
                match store.apply(vec![create(number)]).await {
                    Ok(replies) => {
                        assert!(
                            matches!(replies[..], [Ok(Reply::Created(_) | Reply::Existing(_))]),
                            "{replies:?}"
                        );
                        return;
                    }
                    Err(error) if error.is_fatal() => {
                        store.close().await;
                        store = open(&target).await;
                        assert_eq!(store.opening().lost, None);
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, acknowledged).await.expect("it is acknowledged");
    }
    failing.unwrap().await.unwrap();
    assert_eq!(standby.sql(&database, "SELECT pg_is_in_recovery()").unwrap(), "f");
    store.close().await;
    drop(store);
    check(&target, count as usize).await;
}

/// What holds a table for longer than a lease, such as a tool of the database, keeps old commits and not the lease.
#[tokio::test(flavor = "multi_thread")]
async fn held_table_does_not_end_the_owner() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let store = open(&target).await;
    let rival = Rival::start(&target, server, &database).await;
    let held = database.clone();
    let holding = tokio::task::spawn_blocking(move || {
        let seconds = OUTAGE.as_secs();
        let hold =
            format!("BEGIN; LOCK TABLE rota.commits IN SHARE MODE; SELECT pg_sleep({seconds}); COMMIT");
        server.sql(&held, &hold).unwrap();
    });
    holding.await.unwrap();
    acknowledged(&store, 0).await;
    rival.stop().await;
    store.close().await;
}

/// Creates a task, which must be acknowledged.
async fn acknowledged(store: &Postgres, number: u128) {
    let created = tokio::time::timeout(LIMIT, store.apply(vec![create(number)])).await.expect("it answers");
    assert!(matches!(created.as_deref(), Ok([Ok(Reply::Created(_))])), "{created:?}");
}

/// Creates a task, which must be refused since the server was replaced.
async fn refused(store: &Postgres) {
    let refused = tokio::time::timeout(LIMIT, store.apply(vec![create(2)])).await.expect("it answers");
    assert!(
        matches!(&refused, Err(Error::Unavailable { message, hint })
            if message.contains("timeline 1") && hint.contains("stop the replaced server")),
        "{refused:?}"
    );
}

/// The primary that comes back is the first of the hosts, and has more commits than its successor: a replica that used it would lose
/// those of the successor, and notice nothing.
#[tokio::test(flavor = "multi_thread")]
async fn replaced_primary_is_not_used_again() {
    let primary = PostgresServer::start("").unwrap();
    let database = primary.database().unwrap();
    let alone = Target::parse(&database, None).unwrap();
    let store = open(&alone).await;
    acknowledged(&store, 0).await;
    store.close().await;
    let standby = primary.asynchronous_standby().unwrap();
    standby.stop(Stop::Fast).unwrap();
    let store = open(&alone).await;
    for number in 1..9 {
        acknowledged(&store, number).await;
    }
    store.close().await;
    primary.stop(Stop::Immediate).unwrap();
    standby.resume().unwrap();
    standby.promote().unwrap();
    let target = both(&primary, &standby, &database);
    let store = open(&target).await;
    acknowledged(&store, 1).await;
    let rival = Rival::start(&target, &standby, &database).await;

    standby.stop(Stop::Fast).unwrap();
    primary.resume().unwrap();
    refused(&store).await;
    // An owner that ended with its lease would be restarted, and know only the replaced server.
    tokio::time::sleep(OUTAGE).await;
    refused(&store).await;
    assert!(store.list(Filter { limit: 10, ..Filter::default() }).await.is_err());
    let owner = primary.sql(&database, "SELECT count(owner) FROM rota.shards").unwrap();
    assert_eq!(owner, "0", "a replica has taken the replaced server");
    rival.stop().await;

    primary.stop(Stop::Fast).unwrap();
    standby.resume().unwrap();
    acknowledged(&store, 2).await;
    store.close().await;
    drop(store);
    check(&target, 3).await;
}
