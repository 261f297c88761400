//! Connections that are cut in the middle of a commit, sessions that are ended, and a server that crashes: every command that was
//! acknowledged is there once, and the store continues by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) fn create(number: u128) -> Command {
    let namespace = Namespace::new("n").unwrap();
    let target = TaskTarget::Capabilities(["code".to_owned()].into());
    let task = Task::new(TaskId(Uuid::from_u128(number + 1)), namespace, target);
    Command::Create(Box::new(Create {
        task,
        payload: Bytes::from(vec![1; 300]),
        secrets: None,
        artifacts: None,
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
async fn check(target: &Target, count: usize) {
    let store = open(target).await;
    let page = store.list(Filter { limit: 10_000, ..Filter::default() }).await.unwrap();
    let mut ids: Vec<_> = page.tasks.iter().map(|task| task.id.0.as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=count as u128).collect::<Vec<_>>());
    store.close().await;
}

/// Carries connections to a server's socket, and ends all of them once a number of bytes has passed in one direction.
pub(crate) struct Cutter {
    pub(crate) url: String,
    /// Bytes that may still pass, to the server and back; below zero after a cut.
    left: Arc<[AtomicI64; 2]>,
    cuts: Arc<[AtomicUsize; 2]>,
    all: watch::Sender<u64>,
    /// Whether new connections are refused.
    blocked: Arc<AtomicBool>,
}

impl Cutter {
    pub(crate) async fn start(server: &PostgresServer, database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = database.rsplit('/').next().unwrap();
        let socket = server.socket().join(".s.PGSQL.5432");
        let left = Arc::new([AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX)]);
        let cutter = Self {
            url: format!("postgres://rota@127.0.0.1:{port}/{name}"),
            left,
            cuts: Arc::default(),
            all: watch::channel(0).0,
            blocked: Arc::default(),
        };
        let (left, cuts, all) = (Arc::clone(&cutter.left), Arc::clone(&cutter.cuts), cutter.all.clone());
        let blocked = Arc::clone(&cutter.blocked);
        rota_telemetry::spawn("cutter", rota_telemetry::OnExit::Done, async move {
            while let Ok((near, _)) = listener.accept().await {
                if blocked.load(Ordering::SeqCst) {
                    continue;
                }
                let (left, cuts, all, socket) = (left.clone(), cuts.clone(), all.clone(), socket.clone());
                let carried = carry(near, socket, left, cuts, all);
                rota_telemetry::spawn("cut-connection", rota_telemetry::OnExit::Done, carried);
            }
        });
        cutter
    }

    /// Ends all connections after some bytes to the server (0) or from it (1).
    fn arm(&self, direction: usize, bytes: i64) {
        self.left[direction].store(bytes, Ordering::SeqCst);
    }

    /// Ends all connections and refuses new ones, or accepts them again.
    pub(crate) fn block(&self, blocks: bool) {
        self.blocked.store(blocks, Ordering::SeqCst);
        self.all.send_modify(|number| *number += 1);
    }

    fn disarm(&self) {
        for left in &*self.left {
            left.store(i64::MAX, Ordering::SeqCst);
        }
    }
}

async fn carry(
    near: tokio::net::TcpStream,
    socket: PathBuf,
    left: Arc<[AtomicI64; 2]>,
    cuts: Arc<[AtomicUsize; 2]>,
    all: watch::Sender<u64>,
) {
    let Ok(far) = UnixStream::connect(socket).await else { return };
    let mut ended = all.subscribe();
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_read, far_write, 0, &left, &cuts, &all) => {}
        () = copy(far_read, near_write, 1, &left, &cuts, &all) => {}
        _ = ended.changed() => {}
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    direction: usize,
    left: &[AtomicI64; 2],
    cuts: &[AtomicUsize; 2],
    all: &watch::Sender<u64>,
) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let before = left[direction].fetch_sub(count as i64, Ordering::SeqCst);
        let passes = usize::try_from(before.clamp(0, count as i64)).unwrap();
        if to.write_all(&buffer[..passes]).await.is_err() {
            return;
        }
        if passes < count {
            // Those that are opened from now on work.
            left[direction].store(i64::MAX, Ordering::SeqCst);
            cuts[direction].fetch_add(1, Ordering::SeqCst);
            // The server must receive what passed before the connection ends.
            let _ = to.flush().await;
            all.send_modify(|number| *number += 1);
            return;
        }
    }
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
        let direction = random.random_range(0..2);
        cutter.arm(direction, random.random_range(0..if direction == 0 { 3000 } else { 400 }));
        insist(&store, number).await;
        cutter.disarm();
    }
    for cuts in &*cutter.cuts {
        assert!(cuts.load(Ordering::SeqCst) > 10, "{cuts:?} connections were cut");
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
