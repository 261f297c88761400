//! Store with a single writer: a thread owns the engine, and commands that arrive while a commit runs share the next
//! one (group commit without a timer). Reads run concurrently.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rota_core::task::{Event, Task};
use rota_core::{RouteId, TaskKey, Timestamp};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::engine::Engine;
use crate::{
    Backend, Budget, Command, Commit, Error, FeedPage, Filter, NameKey, Page, Reader, Refused, Reply,
    ScopedId, Snapshot, Store, StoreStats,
};

/// Commands per transaction, unless a single call has more.
const MAX_BATCH: usize = 1024;
/// Payloads per transaction, in units of [`UNIT_BYTES`], unless a single call has more: a long one delays all others.
const MAX_BATCH_UNITS: u32 = 8192;
/// Capacity of the queue of calls, in units of [`UNIT_BYTES`]; each call takes one, and those for its payloads.
const CALL_QUEUE_UNITS: u32 = 65_536;
const UNIT_BYTES: usize = 1024;
/// Capacity of the channel of commits; a full one stops the writer.
const COMMIT_CHANNEL_CAPACITY: usize = 256;
/// Time after a failed commit for which calls share none.
const CAUTIOUS_FOR: Duration = Duration::from_secs(5);
/// Time for which a lazy call waits for a commit that it can share.
const LAZY_DELAY: Duration = Duration::from_millis(20);
/// Pause between attempts to continue follow-ups while the store fails.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Source of the time, which tests replace.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Immediate,
    Lazy,
    /// Executed alone, and not written.
    DryRun,
}

type Answer = Result<Vec<Result<Reply, Refused>>, Error>;

struct Call {
    batch: Vec<Command>,
    mode: Mode,
    /// Units of the queue's capacity that it takes.
    units: u32,
    reply: oneshot::Sender<Answer>,
}

/// Store with a single writer over any database.
pub struct SingleWriterStore<R> {
    calls: Mutex<Option<blocking::Sender<Call>>>,
    /// Free units of the queue. Callers get them in the order in which they asked, so that the calls of one caller do not
    /// overtake each other.
    free: Arc<Semaphore>,
    outbox: Arc<Outbox>,
    reads: Arc<R>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl<R> std::fmt::Debug for SingleWriterStore<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleWriterStore").finish_non_exhaustive()
    }
}

impl<R: Reader> SingleWriterStore<R> {
    pub fn start<B: Backend>(engine: Engine<B>, reads: R, clock: Clock) -> Result<Self, Error> {
        let (calls, inbox) = blocking::channel();
        let free = Arc::new(Semaphore::new(CALL_QUEUE_UNITS as usize));
        let outbox = Arc::new(Outbox::default());
        let writer = std::thread::Builder::new()
            .name("rota-store-writer".to_owned())
            .spawn({
                let (outbox, free) = (Arc::clone(&outbox), Arc::clone(&free));
                move || write(engine, &Inbox { calls: inbox, free }, &outbox, &clock)
            })
            .map_err(|error| Error::Unavailable {
                message: format!("failed to start the writer thread: {error}"),
                hint: "raise the limit of threads",
            })?;
        Ok(Self {
            calls: Mutex::new(Some(calls)),
            free,
            outbox,
            reads: Arc::new(reads),
            writer: Mutex::new(Some(writer)),
        })
    }

    async fn call(&self, batch: Vec<Command>, mode: Mode) -> Answer {
        let (reply, answer) = oneshot::channel();
        let bytes: usize = batch.iter().map(Command::payload_bytes).sum();
        let units = u32::try_from(1 + bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(CALL_QUEUE_UNITS);
        self.send(Call { batch, mode, units, reply }).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Enqueues a call when there is room for it.
    async fn send(&self, call: Call) -> Result<(), Error> {
        // The writer returns the units when it takes the call.
        self.free.acquire_many(call.units).await.map_err(|_| Error::Closed)?.forget();
        let calls = self.calls.lock();
        calls.as_ref().ok_or(Error::Closed)?.send(call).map_err(|_| Error::Closed)
    }

    async fn read<O: Send + 'static>(
        &self,
        read: impl FnOnce(&R) -> Result<O, Error> + Send + 'static,
    ) -> Result<O, Error> {
        let reads = Arc::clone(&self.reads);
        tokio::task::spawn_blocking(move || read(&reads)).await.map_err(|_| Error::Closed)?
    }
}

/// Channel of commits. Without a reader, commits are dropped, so that the writer never waits for one.
#[derive(Debug, Default)]
struct Outbox {
    sender: Mutex<Option<mpsc::Sender<Commit>>>,
    taken: AtomicBool,
    ended: AtomicBool,
}

impl Outbox {
    fn open(&self) -> Option<mpsc::Receiver<Commit>> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(COMMIT_CHANNEL_CAPACITY);
        let mut place = self.sender.lock();
        if !self.ended.load(Ordering::Relaxed) {
            *place = Some(sender);
        }
        Some(receiver)
    }

    fn end(&self) {
        let mut place = self.sender.lock();
        self.ended.store(true, Ordering::Relaxed);
        place.take();
    }

    fn send(&self, commit: Commit) {
        let sender = self.sender.lock().clone();
        if let Some(sender) = sender
            && !commit.is_empty()
            && sender.blocking_send(commit).is_err()
        {
            // The reader was dropped.
            self.sender.lock().take();
        }
    }
}

/// Closes the channel of commits with the writer, also when it panics: the reader must not wait for more.
struct CloseOnDrop<'a>(&'a Outbox);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The writer's end of the queue. Callers that wait for room fail once it is dropped.
struct Inbox {
    calls: blocking::Receiver<Call>,
    free: Arc<Semaphore>,
}

enum Next {
    Call(Call),
    None,
    /// All senders of calls are dropped.
    Closed,
}

impl Inbox {
    /// Waits for the next call; with a limit, at most that long.
    fn next(&self, limit: Option<Duration>) -> Next {
        use blocking::{RecvTimeoutError, TryRecvError};
        let call = match limit {
            None => self.calls.recv().map_err(|_| Next::Closed),
            Some(Duration::ZERO) => self.calls.try_recv().map_err(|error| match error {
                TryRecvError::Empty => Next::None,
                TryRecvError::Disconnected => Next::Closed,
            }),
            Some(limit) => self.calls.recv_timeout(limit).map_err(|error| match error {
                RecvTimeoutError::Timeout => Next::None,
                RecvTimeoutError::Disconnected => Next::Closed,
            }),
        };
        match call {
            Ok(call) => {
                self.free.add_permits(call.units as usize);
                Next::Call(call)
            }
            Err(next) => next,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.free.close();
    }
}

fn write<B: Backend>(mut engine: Engine<B>, inbox: &Inbox, commits: &Outbox, clock: &Clock) {
    let _last = CloseOnDrop(commits);
    let mut waiting: VecDeque<Call> = VecDeque::new();
    let mut failed = false;
    let mut cautious = Cautious::default();
    loop {
        // The engine continues its follow-ups without calls; while the store fails, at a slow pace.
        let pause = if failed { RETRY_DELAY } else { Duration::ZERO };
        if !gather(inbox, engine.has_backlog().then_some(pause), cautious.is_on(), &mut waiting) {
            return;
        }
        let mut batch = Vec::new();
        let (mut open, mut dry_runs) = (Vec::new(), Vec::new());
        while let Some(call) = waiting.pop_front() {
            if call.mode == Mode::DryRun {
                dry_runs.push(call);
                continue;
            }
            let count = call.batch.len();
            batch.extend(call.batch);
            open.push((count, call.reply));
        }
        if !open.is_empty() || engine.has_backlog() {
            match commit(&mut engine, batch, open, commits, clock()) {
                Ok(()) => failed = false,
                Err(error) if error.is_fatal() => return,
                Err(_) => {
                    failed = true;
                    cautious.begin();
                }
            }
        }
        for call in dry_runs {
            let _ = call.reply.send(engine.dry_run(call.batch, clock()));
        }
    }
}

/// Executes a batch, publishes its commit, and answers its calls.
fn commit<B: Backend>(
    engine: &mut Engine<B>,
    batch: Vec<Command>,
    open: Vec<(usize, oneshot::Sender<Answer>)>,
    commits: &Outbox,
    now: Timestamp,
) -> Result<(), Error> {
    let commands = batch.len();
    #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
    let began = std::time::Instant::now();
    match engine.run(batch, now) {
        Ok(mut outcome) => {
            (outcome.commit.commands, outcome.commit.took) = (commands, began.elapsed());
            // Sent before any reply, so that a caller with a reply finds the commit already published.
            commits.send(outcome.commit);
            let mut replies = outcome.replies.into_iter();
            for (count, reply) in open {
                let _ = reply.send(Ok(replies.by_ref().take(count).collect()));
            }
            Ok(())
        }
        Err(error) => {
            for (_, reply) in open {
                let _ = reply.send(Err(error.clone()));
            }
            Err(error)
        }
    }
}

/// After a failed commit, calls are committed one by one: of several that share a commit, one may not fit on a disk that is
/// nearly full, and all would fail with it.
#[derive(Default)]
struct Cautious {
    since: Option<std::time::Instant>,
}

#[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
impl Cautious {
    fn begin(&mut self) {
        self.since = Some(std::time::Instant::now());
    }

    fn is_on(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() < CAUTIOUS_FOR)
    }
}

/// Waits for calls, or `alone` for one; with a limit, at most that long. Lazy ones wait for others to share a commit with, up to `LAZY_DELAY`.
/// Returns `false` once all senders are dropped.
fn gather(inbox: &Inbox, limit: Option<Duration>, alone: bool, waiting: &mut VecDeque<Call>) -> bool {
    let first = match inbox.next(limit) {
        Next::Call(first) => first,
        Next::None => return true,
        Next::Closed => return false,
    };
    // With follow-ups to continue there is a commit to share immediately.
    let mut hurry = first.mode != Mode::Lazy || limit.is_some();
    let (mut count, mut units) = (first.batch.len(), first.units);
    waiting.push_back(first);
    #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
    let until = std::time::Instant::now() + LAZY_DELAY;
    while count < MAX_BATCH && units < MAX_BATCH_UNITS && !alone {
        #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
        let left =
            if hurry { Duration::ZERO } else { until.saturating_duration_since(std::time::Instant::now()) };
        let Next::Call(call) = inbox.next(Some(left)) else { break };
        hurry |= call.mode != Mode::Lazy;
        count += call.batch.len();
        units = units.saturating_add(call.units);
        waiting.push_back(call);
    }
    true
}

#[async_trait]
impl<R: Reader> Store for SingleWriterStore<R> {
    async fn apply(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error> {
        self.call(batch, Mode::Immediate).await
    }

    async fn apply_lazily(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error> {
        self.call(batch, Mode::Lazy).await
    }

    async fn dry_run(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error> {
        self.call(batch, Mode::DryRun).await
    }

    fn commits(&self) -> Option<mpsc::Receiver<Commit>> {
        self.outbox.open()
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.read(|reads| reads.snapshot()).await
    }

    async fn task(&self, id: ScopedId) -> Result<Option<Task>, Error> {
        self.read(move |reads| reads.task(&id)).await
    }

    async fn newest(&self, alias: NameKey) -> Result<Option<Task>, Error> {
        self.read(move |reads| reads.newest(&alias)).await
    }

    async fn payload(&self, key: TaskKey) -> Result<Option<Bytes>, Error> {
        self.read(move |reads| reads.payload(key)).await
    }

    async fn result(&self, key: TaskKey) -> Result<Option<Bytes>, Error> {
        self.read(move |reads| reads.result(key)).await
    }

    async fn list(&self, filter: Filter) -> Result<Page, Error> {
        self.read(move |reads| reads.list(&filter)).await
    }

    async fn events(&self, key: TaskKey, after: u64, budget: Budget) -> Result<Vec<Event>, Error> {
        self.read(move |reads| reads.events(key, after, budget)).await
    }

    async fn feed(&self, after: u64, budget: Budget) -> Result<FeedPage, Error> {
        self.read(move |reads| reads.feed(after, budget)).await
    }

    async fn revision(&self) -> Result<u64, Error> {
        self.read(|reads| reads.revision()).await
    }

    async fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error> {
        self.read(move |reads| reads.ahead(route, rank)).await
    }

    async fn stats(&self, routes: Vec<RouteId>) -> Result<StoreStats, Error> {
        self.read(move |reads| reads.stats(&routes)).await
    }

    async fn close(&self) {
        self.calls.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}
