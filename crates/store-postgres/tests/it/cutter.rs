//! Link to a server's socket that tests cut, block, freeze, silence and slow down.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::PostgresServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// Directions in which bytes are carried.
pub(crate) const TO_SERVER: usize = 0;
pub(crate) const FROM_SERVER: usize = 1;

type Condition = Arc<dyn Fn() -> bool + Send + Sync>;

/// Carries connections to a server's socket.
pub(crate) struct Cutter {
    pub(crate) url: String,
    link: Arc<Link>,
}

struct Link {
    socket: PathBuf,
    /// Bytes that may still pass, by direction; below zero after a cut.
    left: [AtomicI64; 2],
    cuts: [AtomicUsize; 2],
    /// Ends all connections when it changes.
    ended: watch::Sender<u64>,
    /// Whether new connections are refused.
    blocked: AtomicBool,
    blocks_after_cut: AtomicBool,
    /// Connections that were accepted so far, and how many of them pass nothing any more.
    accepted: AtomicU64,
    frozen: AtomicU64,
    /// Milliseconds for each KiB to the server.
    delay: AtomicU64,
    /// Ends all connections in place of the next answer for which it holds.
    cut_once: Mutex<Option<Condition>>,
}

impl Cutter {
    pub(crate) async fn start(server: &PostgresServer, database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = database.rsplit('/').next().unwrap();
        let link = Arc::new(Link {
            socket: server.socket().join(".s.PGSQL.5432"),
            left: [AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX)],
            cuts: Default::default(),
            ended: watch::channel(0).0,
            blocked: AtomicBool::default(),
            blocks_after_cut: AtomicBool::default(),
            accepted: AtomicU64::default(),
            frozen: AtomicU64::default(),
            delay: AtomicU64::default(),
            cut_once: Mutex::default(),
        });
        let cutter =
            Self { url: format!("postgres://rota@127.0.0.1:{port}/{name}"), link: Arc::clone(&link) };
        spawn("cutter", OnExit::Done, async move {
            while let Ok((near, _)) = listener.accept().await {
                if !link.blocked.load(Ordering::SeqCst) {
                    spawn("cut-connection", OnExit::Done, carry(near, Arc::clone(&link)));
                }
            }
        });
        cutter
    }

    /// Ends all connections after some bytes in a direction.
    pub(crate) fn arm(&self, direction: usize, bytes: i64) {
        self.link.left[direction].store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn disarm(&self) {
        for left in &self.link.left {
            left.store(i64::MAX, Ordering::SeqCst);
        }
    }

    /// Ends all connections in place of the next answer for which a condition holds. It may block.
    pub(crate) fn cut_once(&self, condition: impl Fn() -> bool + Send + Sync + 'static) {
        *self.link.cut_once.lock() = Some(Arc::new(condition));
    }

    /// Returns how often connections were cut by bytes of a direction.
    pub(crate) fn cuts(&self, direction: usize) -> usize {
        self.link.cuts[direction].load(Ordering::SeqCst)
    }

    /// Ends all connections and refuses new ones, or accepts them again.
    pub(crate) fn block(&self, blocks: bool) {
        self.link.blocked.store(blocks, Ordering::SeqCst);
        self.link.ended.send_modify(|number| *number += 1);
    }

    /// Refuses new connections from the next cut on.
    pub(crate) fn block_after_cut(&self) {
        self.link.blocks_after_cut.store(true, Ordering::SeqCst);
    }

    /// Stops the connections that there are, without an end: those opened from now on work.
    pub(crate) fn freeze(&self) {
        self.link.frozen.store(self.link.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Stops all connections, without an end, those opened from now on as well.
    pub(crate) fn silence(&self) {
        self.link.frozen.store(u64::MAX, Ordering::SeqCst);
    }

    /// Delays each KiB to the server.
    pub(crate) fn slow_down(&self, delay: Duration) {
        self.link.delay.store(delay.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }
}

impl Link {
    fn cut(&self, direction: usize) {
        self.cuts[direction].fetch_add(1, Ordering::SeqCst);
        if self.blocks_after_cut.swap(false, Ordering::SeqCst) {
            self.blocked.store(true, Ordering::SeqCst);
        }
        self.ended.send_modify(|number| *number += 1);
    }

    /// Whether an answer is the one to be cut.
    fn cuts_answer(&self) -> bool {
        let condition = self.cut_once.lock().clone();
        let holds = condition.is_some_and(|holds| tokio::task::block_in_place(|| holds()));
        if holds {
            // Answers of two connections may wait for it: neither passes.
            self.cut_once.lock().take();
        }
        holds
    }
}

async fn carry(near: TcpStream, link: Arc<Link>) {
    let number = link.accepted.fetch_add(1, Ordering::SeqCst);
    let mut ended = link.ended.subscribe();
    let Ok(far) = UnixStream::connect(&link.socket).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_read, far_write, TO_SERVER, number, &link) => {}
        () = copy(far_read, near_write, FROM_SERVER, number, &link) => {}
        _ = ended.changed() => {}
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    direction: usize,
    number: u64,
    link: &Link,
) {
    let mut buffer = [0; 1024];
    // When the next piece may pass: one that is late delays none after it.
    let mut due: Option<Instant> = None;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if number < link.frozen.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if direction == FROM_SERVER && link.cuts_answer() {
            return link.cut(direction);
        }
        let delay = link.delay.load(Ordering::SeqCst);
        if direction == TO_SERVER && delay > 0 {
            let due = due.get_or_insert_with(Instant::now);
            *due += Duration::from_millis(delay);
            tokio::time::sleep_until(*due).await;
        }
        let before = link.left[direction].fetch_sub(count as i64, Ordering::SeqCst);
        let passes = usize::try_from(before.clamp(0, count as i64)).unwrap();
        if to.write_all(&buffer[..passes]).await.is_err() {
            return;
        }
        if passes < count {
            // Those that are opened from now on work.
            link.left[direction].store(i64::MAX, Ordering::SeqCst);
            // The server must receive what passed before the connection ends.
            let _ = to.flush().await;
            return link.cut(direction);
        }
    }
}
