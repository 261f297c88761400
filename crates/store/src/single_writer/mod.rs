//! Store with a single writer: a thread owns the engine, and commands that arrive while a commit runs share the next
//! one (group commit without a timer). Reads run concurrently.

mod outbox;
mod writer;

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc as blocking;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rota_core::task::{Event, Task};
use rota_core::{RouteId, TaskKey, Timestamp};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::outbox::Outbox;
use self::writer::{Inbox, write};
use crate::engine::Engine;
use crate::search::{ChangedTexts, IndexUpdate, SearchQuery};
use crate::{
    ArtifactsKeys, ArtifactsRow, Backend, Budget, Command, Commit, DatabaseStatus, Document, DocumentKey,
    Documents, DocumentsPage, Error, FeedPage, Filter, NameKey, Opening, Page, Reader, Refused, Replica,
    Reply, ScopedId, SealedSecrets, Snapshot, Store, StoreSpace, StoreStats, TaskBody, Thread, WorkflowQuery,
    WorkflowRows,
};

/// Capacity of the queue of calls, in units of [`UNIT_BYTES`]; each call takes one, and those for its payloads.
const CALL_QUEUE_UNITS: u32 = 65_536;
const UNIT_BYTES: usize = 1024;

/// Calls of the full-text index that run concurrently. They have places of their own: a search may take long, and reads must not wait for
/// it.
const INDEX_CALLS: usize = 2;

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
    calls: Arc<Mutex<Option<blocking::Sender<Call>>>>,
    /// Free units of the queue. Callers get them in the order in which they asked, so that the calls of one caller do not
    /// overtake each other.
    free: Arc<Semaphore>,
    outbox: Arc<Outbox>,
    reads: Arc<R>,
    /// Reads that may begin: more would occupy threads that others need.
    free_reads: Arc<Semaphore>,
    free_index_calls: Arc<Semaphore>,
    /// Closed by the end of the writer, once the engine and all that the backend holds are dropped.
    ended: watch::Receiver<()>,
    opening: Opening,
}

impl<R> std::fmt::Debug for SingleWriterStore<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleWriterStore").finish_non_exhaustive()
    }
}

impl<R: Reader> SingleWriterStore<R> {
    pub fn start<B: Backend>(mut engine: Engine<B>, reads: R, clock: Clock) -> Result<Self, Error> {
        engine.opened(clock());
        let opening = Opening { revision: engine.revision(), lost: None };
        let (calls, inbox) = blocking::channel();
        let calls = Arc::new(Mutex::new(Some(calls)));
        // An empty call, so that the writer looks and ends.
        let place = Arc::downgrade(&calls);
        engine.backend().on_lost(Box::new(move || {
            let Some(calls) = place.upgrade() else { return };
            if let Some(calls) = &*calls.lock() {
                let call =
                    Call { batch: Vec::new(), mode: Mode::Immediate, units: 0, reply: oneshot::channel().0 };
                let _ = calls.send(call);
            }
        }));
        let free = Arc::new(Semaphore::new(CALL_QUEUE_UNITS as usize));
        let outbox = Arc::new(Outbox::default());
        let (running, ended) = watch::channel(());
        std::thread::Builder::new()
            .name("rota-store-writer".to_owned())
            .spawn({
                let (outbox, free) = (Arc::clone(&outbox), Arc::clone(&free));
                move || {
                    let _running = running;
                    write(engine, &Inbox { calls: inbox, free }, &outbox, &clock);
                }
            })
            .map_err(|error| Error::Unavailable {
                message: format!("failed to start the writer thread: {error}"),
                hint: "raise the limit of threads",
            })?;
        Ok(Self {
            calls,
            free,
            outbox,
            free_reads: Arc::new(Semaphore::new(reads.concurrency())),
            free_index_calls: Arc::new(Semaphore::new(INDEX_CALLS)),
            reads: Arc::new(reads),
            ended,
            opening,
        })
    }

    /// Notes the revision that the store had before, if it has lost the commits up to there.
    #[must_use]
    pub fn having_lost(mut self, lost: Option<u64>) -> Self {
        self.opening.lost = lost;
        self
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
        self.read_within(&self.free_reads, read).await
    }

    async fn call_index<O: Send + 'static>(
        &self,
        call: impl FnOnce(&R) -> Result<O, Error> + Send + 'static,
    ) -> Result<O, Error> {
        self.read_within(&self.free_index_calls, call).await
    }

    async fn read_within<O: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        read: impl FnOnce(&R) -> Result<O, Error> + Send + 'static,
    ) -> Result<O, Error> {
        let reads = Arc::clone(&self.reads);
        let free = Arc::clone(places).acquire_owned().await.map_err(|_| Error::Closed)?;
        let read = move || {
            // Kept until the end, also when the caller does not wait for it.
            let _free = free;
            read(&reads)
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Error::Closed)?
    }
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

    fn opening(&self) -> Opening {
        self.opening
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

    async fn thread(&self, name: NameKey) -> Result<Option<Thread>, Error> {
        self.read(move |reads| reads.thread(&name)).await
    }

    async fn threads(&self, after: NameKey, limit: usize) -> Result<Vec<(NameKey, Thread)>, Error> {
        self.read(move |reads| reads.threads(&after, limit)).await
    }

    async fn workflows(&self, query: WorkflowQuery) -> Result<WorkflowRows, Error> {
        self.read(move |reads| reads.workflows(&query)).await
    }

    async fn document(&self, key: DocumentKey) -> Result<Option<Document>, Error> {
        self.read(move |reads| reads.document(&key)).await
    }

    async fn documents(&self, page: DocumentsPage) -> Result<Documents, Error> {
        self.read(move |reads| reads.documents(&page)).await
    }

    async fn payload(&self, key: TaskKey) -> Result<Option<Bytes>, Error> {
        Ok(self.bodies(TaskBody::Payload, vec![key], 1).await?.pop().map(|(_, body)| body))
    }

    async fn result(&self, key: TaskKey) -> Result<Option<Bytes>, Error> {
        Ok(self.bodies(TaskBody::Result, vec![key], 1).await?.pop().map(|(_, body)| body))
    }

    async fn bodies(
        &self,
        body: TaskBody,
        keys: Vec<TaskKey>,
        bytes: u64,
    ) -> Result<Vec<(TaskKey, Bytes)>, Error> {
        self.read(move |reads| reads.bodies(body, &keys, bytes)).await
    }

    async fn artifacts(&self, keys: ArtifactsKeys, limit: usize) -> Result<Vec<ArtifactsRow>, Error> {
        self.read(move |reads| reads.artifacts(keys, limit)).await
    }

    async fn list(&self, filter: Filter) -> Result<Page, Error> {
        self.read(move |reads| reads.list(&filter)).await
    }

    async fn search(&self, query: SearchQuery) -> Result<Vec<TaskKey>, Error> {
        self.call_index(move |reads| reads.search(&query)).await
    }

    async fn changed_texts(&self, after: u64, entries: usize) -> Result<ChangedTexts, Error> {
        self.read(move |reads| reads.changed_texts(after, entries)).await
    }

    async fn indexed_revision(&self) -> Result<Option<u64>, Error> {
        self.call_index(|reads| reads.indexed_revision()).await
    }

    async fn update_index(&self, update: IndexUpdate) -> Result<bool, Error> {
        self.call_index(move |reads| reads.update_index(&update)).await
    }

    async fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error> {
        self.call_index(move |reads| reads.indexed_keys(after, limit)).await
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

    async fn secrets(&self, after: TaskKey, limit: usize) -> Result<Vec<SealedSecrets>, Error> {
        self.read(move |reads| reads.secrets(after, limit)).await
    }

    async fn ahead(&self, route: RouteId, rank: i64) -> Result<u64, Error> {
        self.read(move |reads| reads.ahead(route, rank)).await
    }

    async fn stats(&self, routes: Vec<RouteId>) -> Result<StoreStats, Error> {
        self.read(move |reads| reads.stats(&routes)).await
    }

    async fn space(&self) -> Result<Option<StoreSpace>, Error> {
        self.read(R::space).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>, Error> {
        self.read(R::replicas).await
    }

    async fn database_status(&self) -> Result<Option<DatabaseStatus>, Error> {
        self.read(R::database_status).await
    }

    async fn backup(&self) -> Result<File, Error> {
        // Takes minutes for a large store: none of the reads waits for it.
        let reads = Arc::clone(&self.reads);
        tokio::task::spawn_blocking(move || reads.backup()).await.map_err(|_| Error::Closed)?
    }

    async fn close(&self) {
        self.calls.lock().take();
        // An error is the end that is waited for.
        let _ = self.ended.clone().changed().await;
    }
}
