//! Replicas that wait for a database: their connections break and freeze, they are stopped, and hosts are unreachable.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rota_core::Namespace;
use rota_store::{
    Command, Document, DocumentKey, DocumentKind, Error, Expected, Filter, PutDocument, Reply, Store,
};
use rota_store_postgres::{Admission, OnWait, Options, Owner, PasswordSource, Postgres, Target};
use rota_testkit::postgres::{PostgresServer, Stop};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cutter::Cutter;
use crate::doubt::{create, hold_shard, open};

const LIMIT: Duration = Duration::from_secs(180);

/// A replica that waits, what it has seen of owners, and what stops it.
struct Standby {
    opened: tokio::task::JoinHandle<Result<Postgres, Error>>,
    seen: watch::Sender<Vec<Option<Owner>>>,
    stop: CancellationToken,
}

impl Standby {
    fn start(target: Target) -> Self {
        Self::start_with(Options::new(target, "standby"))
    }

    fn start_with(options: Options) -> Self {
        let (seen, stop) = (watch::Sender::new(Vec::new()), CancellationToken::new());
        let on_wait: OnWait = {
            let seen = seen.clone();
            Arc::new(move |owner| seen.send_modify(|seen| seen.push(owner.cloned())))
        };
        let options = Options { on_wait, stop: stop.clone(), ..options };
        let opened = tokio::task::spawn_blocking(move || {
            rota_store_postgres::open(options, None).map(|opened| opened.store)
        });
        Self { opened, seen, stop }
    }

    /// Waits for its first look at the owner, and returns what it has seen.
    async fn looks(&self) -> Option<Owner> {
        self.sees(|seen| !seen.is_empty()).await.swap_remove(0)
    }

    /// Waits until what it has seen fits, and returns that.
    async fn sees(&self, fits: impl Fn(&[Option<Owner>]) -> bool) -> Vec<Option<Owner>> {
        let mut seen = self.seen.subscribe();
        let looks = seen.wait_for(|seen| fits(seen));
        tokio::time::timeout(LIMIT, looks).await.expect("it looks").unwrap().clone()
    }

    async fn ended(&mut self) -> Option<Result<Postgres, Error>> {
        tokio::time::timeout(LIMIT, &mut self.opened).await.ok().map(Result::unwrap)
    }
}

/// Each has found an empty database, whose owner stores the document only then.
#[tokio::test(flavor = "multi_thread")]
async fn document_of_a_new_owner_ends_the_wait() {
    let server = PostgresServer::shared();
    let target = Target::parse(&server.database().unwrap(), None).unwrap();
    let first = open(&target).await;
    let key = DocumentKey {
        kind: DocumentKind::SecretKey,
        namespace: Namespace::new("n").unwrap(),
        name: "key".to_owned(),
    };
    let check = |found: Option<&Document>| found.map_or(Ok(()), |_| Err(Error::Deposed));
    let admission = Some(Admission { document: key.clone(), check: Arc::new(check) });
    let mut standby = Standby::start_with(Options { admission, ..Options::new(target, "standby") });
    standby.looks().await.unwrap();
    let put = PutDocument { key, payload: Bytes::from_static(b"key"), expected: Expected::Absent };
    let stored = first.apply(vec![Command::PutDocument(put)]).await.unwrap();
    assert!(matches!(stored[..], [Ok(Reply::Document(_))]), "{stored:?}");
    let ended = standby.ended().await;
    standby.stop.cancel();
    let ended = ended.expect("the wait has ended").map(drop);
    assert!(matches!(ended, Err(Error::Deposed)), "{ended:?}");
    first.close().await;
}

/// The answer that makes it the owner is lost: it must not wait for itself.
#[tokio::test(flavor = "multi_thread")]
async fn lost_takeover_is_found_again() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let first = open(&Target::parse(&database, None).unwrap()).await;
    let cutter = Cutter::start(server, &database).await;
    let mut standby = Standby::start(Target::parse(&cutter.url, None).unwrap());
    standby.looks().await.unwrap();
    let owns =
        "SELECT count(*) FROM rota.shards JOIN rota.replicas ON replicas.id = owner WHERE name = 'standby'";
    cutter.cut_once(move || server.sql(&database, owns).unwrap() == "1");
    first.close().await;
    drop(first);
    let opened = standby.ended().await;
    standby.stop.cancel();
    let store = opened.expect("it owns the database").unwrap();
    assert!(matches!(store.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    assert!(!standby.seen.borrow().iter().flatten().any(|owner| owner.name == "standby"));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_with_frozen_connections_stops() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let first = open(&Target::parse(&database, None).unwrap()).await;
    let cutter = Cutter::start(server, &database).await;
    let mut standby = Standby::start(Target::parse(&cutter.url, None).unwrap());
    standby.looks().await.unwrap();
    cutter.freeze();
    standby.stop.cancel();
    let ended = standby.ended().await;
    cutter.block(true);
    let ended = ended.expect("the wait has ended").map(drop);
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    first.close().await;
}

/// The clock of the database was set back after the owner's last renewal, or that of a promoted server is behind.
#[tokio::test(flavor = "multi_thread")]
async fn lease_from_the_future_is_taken() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let first = open(&target).await;
    first.close().await;
    drop(first);
    let vanished = "SET search_path = rota;
        INSERT INTO replicas (id, name, version, address, expires)
            VALUES (gen_random_uuid(), 'vanished', '0.1.0', '', clock_timestamp() + interval '1 day');
        UPDATE shards SET owner = (SELECT id FROM replicas WHERE name = 'vanished')";
    server.sql(&database, vanished).unwrap();
    let mut standby = Standby::start(target);
    assert_eq!(standby.looks().await.map(|owner| owner.name).as_deref(), Some("vanished"));
    let ended = standby.ended().await;
    standby.stop.cancel();
    let store = ended.expect("it takes over").unwrap();
    assert!(matches!(store.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    store.close().await;
}

/// A lock that it waited for would be one that commits wait for.
#[tokio::test(flavor = "multi_thread")]
async fn looks_at_an_owner_lock_nothing() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let first = open(&target).await;
    let holding = hold_shard(server, &database, 120).await;
    let mut standby = Standby::start(target);
    let seen = standby.looks().await;
    assert_eq!(seen.map(|owner| owner.name).as_deref(), Some("doubt"));
    assert!(!holding.is_finished(), "it has waited for the lock");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event = 'PgSleep'";
    server.sql(&database, end).unwrap();
    standby.stop.cancel();
    let ended = standby.ended().await.unwrap().map(drop);
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    assert!(holding.await.unwrap().is_err(), "it was ended");
    first.close().await;
}

/// A host that answers nothing, not even that its port is closed: the queue of its listener is full.
struct Silent {
    port: u16,
    _parts: (tokio::net::TcpListener, Vec<TcpStream>),
}

impl Silent {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(addr)).await {
            queued.push(stream.unwrap());
        }
        Self { port: addr.port(), _parts: (listener, queued) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_is_renewed_past_an_unreachable_host() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let silent = Silent::start().await;
    let cutter = Cutter::start(server, &database).await;
    let (user, rest) = cutter.url.split_once('@').unwrap();
    let target = Target::parse(&format!("{user}@127.0.0.1:{},{rest}", silent.port), None).unwrap();
    let store = open(&target).await;
    let expires = || server.sql(&database, "SELECT expires FROM rota.replicas").unwrap();
    let first = expires();
    // Its lease is over after ten seconds.
    let renewed = tokio::time::timeout(LIMIT, async {
        while expires() == first {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(renewed.await.is_ok(), "the lease was not renewed");
    store.close().await;
}

/// The password of a user of the database, as a replica reads it.
fn password_source(password: &Arc<Mutex<String>>) -> PasswordSource {
    let password = Arc::clone(password);
    Arc::new(move || Ok(Some(password.lock().clone().into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_password_is_read_again() {
    let mut access = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    writeln!(access, "local all plain scram-sha-256\nlocal all all trust").unwrap();
    std::fs::set_permissions(access.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let server = PostgresServer::start(&format!("hba_file = '{}'", access.path().display())).unwrap();
    let database = server.database().unwrap();
    let name = database.rsplit('/').next().unwrap();
    let changed = |password: &str| {
        let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plain'";
        server.sql(&database, &format!("ALTER ROLE plain PASSWORD '{password}'; {sessions}")).unwrap();
    };
    let role = format!("CREATE ROLE plain LOGIN PASSWORD 'one'; GRANT CREATE ON DATABASE {name} TO plain");
    server.sql(&database, &role).unwrap();
    let password = Arc::new(Mutex::new("one".to_owned()));
    let target = Target::parse(&database.replacen("rota@", "plain@", 1), None).unwrap();
    let target = target.with_password_source(password_source(&password));
    let first = open(&target).await;
    let mut standby = Standby::start(target);
    standby.looks().await.unwrap();

    "two".clone_into(&mut password.lock());
    changed("two");
    standby.seen.send_modify(Vec::clear);
    standby.sees(|seen| seen.iter().any(Option::is_some)).await;
    assert!(matches!(first.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    assert_eq!(first.list(Filter { limit: 10, ..Filter::default() }).await.unwrap().tasks.len(), 1);

    // One that is not known ends the wait, instead of being tried again and again.
    changed("three");
    let ended = standby.ended().await.expect("the wait has ended").map(drop);
    assert!(matches!(&ended, Err(Error::Unavailable { hint, .. }) if hint.contains("password")), "{ended:?}");
    "three".clone_into(&mut password.lock());
    first.close().await;
}

/// During an upgrade, the schema is newer than what the replicas that are still there know.
#[tokio::test(flavor = "multi_thread")]
async fn standby_takes_no_newer_database() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let first = open(&target).await;
    let mut standby = Standby::start(target);
    standby.looks().await.unwrap();
    let epoch = || server.sql(&database, "SELECT epoch FROM rota.shards").unwrap();
    let before = epoch();
    server.sql(&database, "INSERT INTO rota.migrations (version) VALUES (99)").unwrap();
    first.close().await;
    drop(first);
    let ended = standby.ended().await.expect("the wait has ended").map(drop);
    assert!(
        matches!(&ended, Err(Error::Unavailable { message, .. }) if message.contains("newer version")),
        "{ended:?}"
    );
    assert_eq!(epoch(), before);
}

/// During an upgrade, the first new replica migrates while the old owner serves.
#[tokio::test(flavor = "multi_thread")]
async fn owner_commits_after_a_migration() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let first = open(&target).await;
    let latest = || server.sql(&database, "SELECT max(version) FROM rota.migrations").unwrap();
    let version = latest();
    let downgrade =
        "DROP TABLE rota.search_tasks, rota.search_position; DELETE FROM rota.migrations WHERE version >= 8";
    server.sql(&database, downgrade).unwrap();
    assert_eq!(latest(), "7");
    let mut standby = Standby::start(target);
    assert_eq!(standby.looks().await.map(|owner| owner.name).as_deref(), Some("doubt"));
    assert_eq!(latest(), version);
    assert!(matches!(first.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    first.close().await;
    drop(first);
    let next = standby.ended().await.expect("it takes over").unwrap();
    assert!(matches!(next.apply(vec![create(1)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    let page = next.list(Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert_eq!(page.tasks.len(), 2);
    next.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_version_takes_over() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let target = Target::parse(&database, None).unwrap();
    let first = open(&target).await;
    let waiting = ["1.9.0", "1.9.0", "1.9.0", "1.10.0"].map(|version| {
        let (stop, version) = (CancellationToken::new(), version.to_owned());
        let options = Options {
            stop: stop.clone(),
            version: version.clone(),
            ..Options::new(target.clone(), &version)
        };
        (stop, tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None)))
    });
    let registered = async {
        while first.replicas().await.unwrap().len() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, registered).await.expect("all wait");
    first.close().await;
    drop(first);
    let owner = "SELECT name FROM rota.shards JOIN rota.replicas ON replicas.id = owner";
    let owner = async {
        loop {
            let name = server.sql(&database, owner).unwrap();
            if !name.is_empty() {
                return name;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, owner).await.unwrap(), "1.10.0");
    for (stop, opened) in waiting {
        stop.cancel();
        drop(opened.await.unwrap());
    }
}

/// A server that is connected to again may not be the one that was checked at the start.
#[tokio::test(flavor = "multi_thread")]
async fn reconnected_server_is_checked() {
    let server = PostgresServer::start("").unwrap();
    let database = server.database().unwrap();
    let store = open(&Target::parse(&database, None).unwrap()).await;
    let restart = |fsync| {
        server.sql(&database, &format!("ALTER SYSTEM SET fsync = {fsync}")).unwrap();
        server.stop(Stop::Fast).unwrap();
        server.resume().unwrap();
    };
    restart("off");
    let refused = store.apply(vec![create(0)]).await;
    assert!(
        matches!(&refused, Err(Error::Unavailable { message, .. }) if message.contains("fsync=off")),
        "{refused:?}"
    );
    restart("on");
    assert!(matches!(store.apply(vec![create(0)]).await.as_deref(), Ok([Ok(Reply::Created(_))])));
    store.close().await;
}
