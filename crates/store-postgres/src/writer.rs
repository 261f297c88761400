//! The write connection, of the shard's owner: all changes use it. It is opened again after it was lost, and then it is found out
//! what has become of the last commit.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::Timestamp;
use rota_store::codec::{encode, signed};
use rota_store::{Backend, Changes, Error, Load, Loaded, Snapshot, Written};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::commit::{Advance, AskDue, NextDue, deposed, in_doubt, next_due, send};
use crate::errors::Fault;
use crate::floors::Floors;
use crate::lease::{self, OnWait, Ownership, Replica, writer_name};
use crate::rows::{SHARD, decoded, key, route};
use crate::session::{Session, bounded};
use crate::statements::Statements;
use crate::target::Target;
use crate::{Shared, loads, snapshot, sql};

/// Time for which a call waits for a database that has just been lost, such as one that is restarted.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Pause of a control plane that waits for the shard, between attempts to reach the database.
const WAIT_PAUSE: Duration = Duration::from_secs(1);
/// Attempts at one commit, each on a connection of its own.
const MAX_ATTEMPTS: u32 = 3;
/// Time for the shard to be given back at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connection of the shard's owner, with its state.
pub struct Writer {
    /// Drives the connection within each call, on the thread of the caller. `None` only while it is dropped.
    runtime: Option<Runtime>,
    connection: Connection,
    /// Where the timer of the lease runs, and the readers.
    shared: Arc<Shared>,
    keeper: tokio::task::JoinHandle<()>,
}

struct Connection {
    target: Target,
    replica: Replica,
    epoch: i64,
    ownership: Arc<Ownership>,
    session: Option<Session>,
    /// Whether the last attempt to connect has failed: the next call does not wait again.
    down: bool,
    floors: Floors,
    /// Next deadline of workflows and steps, if it is known.
    workflow_due: Option<Option<i64>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("replica", &self.connection.replica)
            .field("epoch", &self.connection.epoch)
            .finish_non_exhaustive()
    }
}

/// Opens the session of a writer.
async fn open(target: &Target, owner: uuid::Uuid) -> Result<Session, Fault> {
    let mut session = Session::open(target, &writer_name(owner)).await?;
    session.prepare(sql::WRITER).await?;
    session.prepare(sql::WORKFLOW_WRITER).await?;
    session.prepare(sql::COLD).await?;
    Ok(session)
}

/// Takes the shard over, once it is free. A database that is lost meanwhile is waited for.
async fn own(
    target: &Target,
    replica: &Replica,
    patience: Option<Duration>,
    on_wait: &OnWait,
) -> Result<(Session, i64), Fault> {
    let mut connected = false;
    loop {
        let owned = async {
            let session = open(target, replica.id).await?;
            connected = true;
            let epoch = lease::acquire(&session, replica, patience, on_wait).await?;
            Ok::<_, Fault>((session, epoch))
        };
        match owned.await {
            Err(fault) if connected && fault.is_lost() && patience.is_none() => {
                if on_wait(None).is_break() {
                    return Err(Fault::Store(Error::Closed));
                }
                tracing::warn!(error = %fault.into_error(), "lost the database while waiting for it");
                tokio::time::sleep(WAIT_PAUSE).await;
            }
            owned => return owned,
        }
    }
}

impl Writer {
    /// Takes the shard over on a checked database, and starts to renew its lease.
    pub(crate) fn take_over(
        target: Target,
        replica: Replica,
        patience: Option<Duration>,
        on_wait: &OnWait,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let runtime = crate::session::runtime(tokio::runtime::Builder::new_current_thread())?;
        let ownership = Arc::new(Ownership::default());
        let taken = async {
            let (session, epoch) = own(&target, &replica, patience, on_wait).await?;
            lease::sync(&session, replica.id, &ownership.clock).await?;
            let keeper =
                shared.enter(|| lease::start(target.clone(), replica.clone(), Arc::clone(&ownership)));
            Ok::<_, Fault>((session, epoch, keeper))
        };
        let (session, epoch, keeper) = runtime.block_on(taken).map_err(Fault::into_error)?;
        let session = Some(session);
        let connection = Connection {
            target,
            replica,
            epoch,
            ownership,
            session,
            down: false,
            floors: Floors::default(),
            workflow_due: None,
        };
        let mut writer = Self { runtime: Some(runtime), connection, shared, keeper };
        writer.repair()?;
        Ok(writer)
    }

    /// Returns the time of the database.
    pub(crate) fn clock(&self) -> rota_store::single_writer::Clock {
        let ownership = Arc::clone(&self.connection.ownership);
        Arc::new(move || ownership.clock.now())
    }

    fn block_on<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let runtime = self.runtime.as_ref().ok_or(Error::Closed)?;
        runtime.block_on(call(&mut self.connection))
    }

    /// Puts records that can be decoded again, for example after a downgrade was undone, back where they belong.
    fn repair(&mut self) -> Result<(), Error> {
        self.block_on(async |connection| {
            let session = connection.session().await?;
            let rows = session.query(sql::UNDECODABLE, &[&SHARD]).await.map_err(Fault::into_error)?;
            let mut repaired = Vec::new();
            for row in &rows {
                let of = key(row, 1).map_err(Fault::into_error)?;
                if let Ok(task) = decoded(of, row, 3).map_err(Fault::into_error)? {
                    repaired.push((Arc::new(task), route(row, 0).map_err(Fault::into_error)?));
                }
            }
            let found = Box::pin(snapshot::read(&session.client, session.prepared()))
                .await
                .map_err(Fault::into_error)?;
            if let Some(at) = found.written_at {
                connection.ownership.clock.not_before(at);
            }
            if repaired.is_empty() {
                return Ok(());
            }
            let changes = Changes {
                before: found.revision,
                revision: found.revision + 1,
                now: found.written_at.unwrap_or(Timestamp(0)),
                last_route: found.last_route,
                ..Changes::default()
            };
            let statements = Statements::repair(&repaired)?;
            connection.commit(&changes, &statements).await.map(drop)
        })
    }
}

impl Connection {
    fn owned(&self) -> Result<(), Error> {
        if self.ownership.is_lost() { Err(Error::Deposed) } else { Ok(()) }
    }

    /// Returns the session; opens it again if it was lost.
    async fn session(&mut self) -> Result<&Session, Error> {
        self.owned()?;
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            let opened = self.reopen().await;
            self.down = opened.is_err();
            self.session = Some(opened?);
        }
        self.session.as_ref().ok_or(Error::Closed)
    }

    /// Opens a session and raises the epoch, so that no earlier session of this process can commit any more.
    async fn reopen(&mut self) -> Result<Session, Error> {
        let began = Instant::now();
        let patience = if self.down { Duration::ZERO } else { RECONNECT_PATIENCE };
        loop {
            let owner = self.replica.id;
            let opened = bounded(async {
                let session = open(&self.target, owner).await?;
                Ok((lease::reclaim(&session, owner).await?, session))
            });
            match opened.await {
                Ok((Some(epoch), session)) => {
                    tracing::info!(epoch, "connected to the database again");
                    self.epoch = epoch;
                    return Ok(session);
                }
                Ok((None, _)) => return Err(Error::Deposed),
                Err(fault) if began.elapsed() >= patience => return Err(fault.into_error()),
                Err(_) => {}
            }
            self.owned()?;
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Executes a read. One whose connection was lost is repeated, once.
    async fn read<T>(
        &mut self,
        read: impl AsyncFn(&Session, &mut Floors) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        for last in [false, true] {
            self.session().await?;
            let Some(session) = &self.session else { return Err(Error::Closed) };
            match bounded(read(session, &mut self.floors)).await {
                Ok(value) => return Ok(value),
                Err(fault) => {
                    let lost = fault.is_lost();
                    if lost {
                        self.session = None;
                    }
                    if !lost || last {
                        return Err(fault.into_error());
                    }
                }
            }
        }
        Err(Error::Closed)
    }

    /// Makes changes durable. If the connection is lost meanwhile, the revision of the shard shows what has become of them: under
    /// the raised epoch, nothing of the earlier session can follow.
    async fn commit(&mut self, changes: &Changes, statements: &Statements) -> Result<NextDue, Error> {
        let workflows = self.workflow_due.is_none() || statements.workflows;
        let ask = AskDue { tasks_from: self.floors.due(), workflows };
        let away = changes.away.as_ref().map(encode).transpose()?;
        for attempt in 1..=MAX_ATTEMPTS {
            self.session().await.map_err(|error| if attempt > 1 { doubtful(error) } else { error })?;
            let Some(session) = &self.session else { return Err(Error::Closed) };
            let advance = Advance {
                epoch: self.epoch,
                before: signed(changes.before),
                revision: signed(changes.revision),
                last_route: i32::try_from(changes.last_route).unwrap_or(i32::MAX),
                now: changes.now.0,
                away: away.clone(),
            };
            let fault = match bounded(send(session, &advance, statements, ask)).await {
                Ok(due) => return Ok(due),
                Err(fault) => fault,
            };
            if fault.is_fenced() {
                return Err(deposed(&fault));
            }
            if !fault.is_lost() {
                return Err(fault.into_error());
            }
            tracing::warn!(error = %fault.into_error(), attempt, "a commit is in doubt");
            self.session = None;
            self.session().await.map_err(doubtful)?;
            let Some(session) = &self.session else { return Err(Error::Closed) };
            let rows = bounded(session.query(sql::SHARD, &[&SHARD])).await.map_err(|_| in_doubt())?;
            let revision: i64 = match rows.first() {
                Some(row) => row.try_get(0).map_err(|error| Fault::from(error).into_error())?,
                None => return Err(Error::Deposed),
            };
            if revision == advance.revision {
                tracing::info!(revision, "the commit in doubt was made");
                return bounded(next_due(session, ask)).await.map_err(|_| in_doubt());
            }
            if revision != advance.before {
                return Err(Error::Deposed);
            }
        }
        Err(in_doubt())
    }
}

/// The error of a commit whose outcome cannot be found out now.
fn doubtful(error: Error) -> Error {
    if error.is_fatal() { error } else { in_doubt() }
}

impl Backend for Writer {
    fn load(&mut self, load: &Load) -> Result<Loaded, Error> {
        self.block_on(async |connection| {
            let read =
                connection.read(async |session, floors| Box::pin(loads::load(session, load, floors)).await);
            Box::pin(read).await
        })
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        let statements = Statements::new(changes)?;
        self.connection.floors.lower(changes);
        if statements.workflows {
            // Not known until the commit is.
            self.connection.workflow_due = None;
        }
        let due = self.block_on(async |connection| connection.commit(changes, &statements).await)?;
        self.connection.floors.next_due(due.tasks);
        let known = &mut self.connection.workflow_due;
        *known = due.workflows.or(*known);
        Ok(Written { next_due: due.tasks.into_iter().chain(known.flatten()).min().map(Timestamp) })
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.block_on(async |connection| {
            connection
                .read(async |session, _| Box::pin(snapshot::read(&session.client, session.prepared())).await)
                .await
        })
    }

    fn confirm(&mut self) -> Result<(), Error> {
        self.block_on(async |connection| {
            // A new connection has raised the epoch: the session that is asked has the current one.
            connection.session().await?;
            let epoch = connection.epoch;
            let rows = connection
                .read(async |session, _| session.query(sql::CONFIRM, &[&SHARD, &epoch]).await)
                .await?;
            if rows.is_empty() && connection.epoch == epoch { Err(Error::Deposed) } else { Ok(()) }
        })
    }

    fn on_lost(&mut self, notify: Box<dyn Fn() + Send + Sync>) {
        self.connection.ownership.on_lost(notify);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.keeper.abort();
        let Some(runtime) = self.runtime.take() else { return };
        let connection = Mutex::new(&mut self.connection);
        // A thread of its own, since this one may belong to another runtime.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut connection = connection.lock();
                let released = runtime
                    .block_on(async { tokio::time::timeout(RELEASE_TIMEOUT, connection.release()).await });
                if released.is_err() {
                    tracing::warn!("the database was not released; its lease ends by itself");
                }
                connection.session = None;
                runtime.shutdown_background();
            });
        });
        let _ = &self.shared;
    }
}

impl Connection {
    async fn release(&mut self) {
        if self.ownership.is_lost() {
            return;
        }
        let owner = self.replica.id;
        let open = self.session.as_ref().filter(|session| !session.client.is_closed());
        let released = match open {
            Some(session) => lease::release(session, owner).await,
            None => Err(Fault::Timeout),
        };
        if released.is_err()
            && let Ok(session) = Session::open(&self.target, "rota-release").await
        {
            let _ = lease::release(&session, owner).await;
        }
    }
}
