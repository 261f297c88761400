//! A store with one writer: a thread owns the engine and gathers whatever arrives while a commit
//! runs into the next one (group commit without a timer). Reads go beside it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rota_core::task::{Event, Task};
use rota_core::{Namespace, RouteId, TaskId, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::engine::Engine;
use crate::{
    Command, Commit, Error, FeedEntry, Figures, Filter, Page, Reads, Refused, Reply, Snapshot, Store, Tables,
};

/// Commands of one transaction, at most, as long as single calls are smaller.
const MAX_BATCH: usize = 1024;
/// Calls that may wait for the writer.
const QUEUE: usize = 8192;
/// Commits that may wait for their reader.
const COMMITS: usize = 256;
/// How long a lazy call may wait for a commit to ride on.
const LAZY: Duration = Duration::from_millis(20);

/// Gives the time; a value, so that tests can give their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    AtOnce,
    Lazily,
    /// By itself, and undone.
    OnTrial,
}

type Answer = Result<Vec<Result<Reply, Refused>>, Error>;

struct Call {
    batch: Vec<Command>,
    how: How,
    reply: oneshot::Sender<Answer>,
}

/// A store with one writer.
pub struct Embedded<R> {
    calls: Mutex<Option<blocking::SyncSender<Call>>>,
    outbox: Arc<Outbox>,
    reads: Arc<R>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl<R> std::fmt::Debug for Embedded<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

impl<R: Reads> Embedded<R> {
    /// Starts the writer.
    pub fn start<T: Tables>(engine: Engine<T>, reads: R, clock: Clock) -> Result<Self, Error> {
        let (calls, inbox) = blocking::sync_channel(QUEUE);
        let outbox = Arc::new(Outbox::default());
        let writer = std::thread::Builder::new()
            .name("rota-store-writer".to_owned())
            .spawn({
                let outbox = Arc::clone(&outbox);
                move || write(engine, &inbox, &outbox, &clock)
            })
            .map_err(|error| Error::Unavailable {
                message: format!("its writer thread cannot start: {error}"),
                hint: "raise the limit on threads",
            })?;
        Ok(Self {
            calls: Mutex::new(Some(calls)),
            outbox,
            reads: Arc::new(reads),
            writer: Mutex::new(Some(writer)),
        })
    }

    async fn call(&self, batch: Vec<Command>, how: How) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.send(Call { batch, how, reply }).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Puts a call into the queue. No sender is held while its answer is awaited: `close` waits for all of them.
    async fn send(&self, call: Call) -> Result<(), Error> {
        let calls = self.calls.lock().clone().ok_or(Error::Closed)?;
        match calls.try_send(call) {
            Ok(()) => Ok(()),
            // The queue is bounded; whoever finds it full waits off the runtime.
            Err(blocking::TrySendError::Full(call)) => tokio::task::spawn_blocking(move || calls.send(call))
                .await
                .map_err(|_| Error::Closed)?
                .map_err(|_| Error::Closed),
            Err(blocking::TrySendError::Disconnected(_)) => Err(Error::Closed),
        }
    }

    async fn read<O: Send + 'static>(
        &self,
        read: impl FnOnce(&R) -> Result<O, Error> + Send + 'static,
    ) -> Result<O, Error> {
        let reads = Arc::clone(&self.reads);
        tokio::task::spawn_blocking(move || read(&reads)).await.map_err(|_| Error::Closed)?
    }
}

/// Where commits go. Without a reader they go nowhere, so that nobody waits for one.
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
        let (sender, receiver) = mpsc::channel(COMMITS);
        let mut place = self.sender.lock();
        if !self.ended.load(Ordering::Relaxed) {
            *place = Some(sender);
        }
        Some(receiver)
    }

    /// The reader hears that there will be no more.
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
            // Its reader has gone.
            self.sender.lock().take();
        }
    }
}

/// Ends the commits with the writer, also when it panics: nobody must go on as if there were more to come.
struct LastWord<'a>(&'a Outbox);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn write<T: Tables>(
    mut engine: Engine<T>,
    inbox: &blocking::Receiver<Call>,
    commits: &Outbox,
    clock: &Clock,
) {
    let _last = LastWord(commits);
    let mut waiting: VecDeque<Call> = VecDeque::new();
    while gather(inbox, &mut waiting) {
        let mut batch = Vec::new();
        let (mut open, mut trials) = (Vec::new(), Vec::new());
        while let Some(call) = waiting.pop_front() {
            if call.how == How::OnTrial {
                trials.push(call);
                continue;
            }
            let count = call.batch.len();
            batch.extend(call.batch);
            open.push((count, call.reply));
        }
        if !open.is_empty() {
            commit(&mut engine, batch, open, commits, clock());
        }
        for call in trials {
            let _ = call.reply.send(engine.rehearse(call.batch, clock()));
        }
    }
}

fn commit<T: Tables>(
    engine: &mut Engine<T>,
    batch: Vec<Command>,
    open: Vec<(usize, oneshot::Sender<Answer>)>,
    commits: &Outbox,
    now: Timestamp,
) {
    let commands = batch.len();
    #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
    let began = std::time::Instant::now();
    match engine.run(batch, now) {
        Ok(mut outcome) => {
            (outcome.commit.commands, outcome.commit.took) = (commands, began.elapsed());
            // In order before any answer, so that whoever was answered finds it already on its way.
            commits.send(outcome.commit);
            let mut replies = outcome.replies.into_iter();
            for (count, reply) in open {
                let _ = reply.send(Ok(replies.by_ref().take(count).collect()));
            }
        }
        Err(error) => {
            for (_, reply) in open {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

/// Waits for calls. Lazy ones wait for company, but not for long. `false` when all senders are gone.
fn gather(inbox: &blocking::Receiver<Call>, waiting: &mut VecDeque<Call>) -> bool {
    let Ok(first) = inbox.recv() else { return false };
    let mut hurry = first.how != How::Lazily;
    let mut count = first.batch.len();
    waiting.push_back(first);
    #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
    let until = std::time::Instant::now() + LAZY;
    while count < MAX_BATCH {
        let next = if hurry {
            inbox.try_recv().ok()
        } else {
            #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
            let left = until.saturating_duration_since(std::time::Instant::now());
            inbox.recv_timeout(left).ok()
        };
        let Some(call) = next else { break };
        hurry |= call.how != How::Lazily;
        count += call.batch.len();
        waiting.push_back(call);
    }
    true
}

#[async_trait]
impl<R: Reads> Store for Embedded<R> {
    async fn apply(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error> {
        self.call(batch, How::AtOnce).await
    }

    async fn apply_lazily(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error> {
        self.call(batch, How::Lazily).await
    }

    async fn rehearse(&self, batch: Vec<Command>) -> Result<Vec<Result<Reply, Refused>>, Error> {
        self.call(batch, How::OnTrial).await
    }

    fn commits(&self) -> Option<mpsc::Receiver<Commit>> {
        self.outbox.open()
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.read(|reads| reads.snapshot()).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, Error> {
        self.read(move |reads| reads.task(id)).await
    }

    async fn newest(&self, namespace: &Namespace, alias: &str) -> Result<Option<TaskId>, Error> {
        let (namespace, alias) = (namespace.clone(), alias.to_owned());
        self.read(move |reads| reads.newest(&namespace, &alias)).await
    }

    async fn payload(&self, id: TaskId) -> Result<Option<Bytes>, Error> {
        self.read(move |reads| reads.payload(id)).await
    }

    async fn result(&self, id: TaskId) -> Result<Option<Bytes>, Error> {
        self.read(move |reads| reads.result(id)).await
    }

    async fn list(&self, filter: Filter) -> Result<Page, Error> {
        self.read(move |reads| reads.list(&filter)).await
    }

    async fn events(&self, id: TaskId, after: u64, limit: usize) -> Result<Vec<Event>, Error> {
        self.read(move |reads| reads.events(id, after, limit)).await
    }

    async fn feed(&self, after: u64, limit: usize) -> Result<Vec<FeedEntry>, Error> {
        self.read(move |reads| reads.feed(after, limit)).await
    }

    async fn revision(&self) -> Result<u64, Error> {
        self.read(|reads| reads.revision()).await
    }

    async fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error> {
        self.read(move |reads| reads.ahead(route, rank)).await
    }

    async fn figures(&self, routes: Vec<RouteId>) -> Result<Figures, Error> {
        self.read(move |reads| reads.figures(&routes)).await
    }

    async fn close(&self) {
        self.calls.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}
