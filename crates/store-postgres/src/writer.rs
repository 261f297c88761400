//! Backend of the shard's owner: all changes use its connection.

use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::Timestamp;
use rota_store::codec::unsigned;
use rota_store::{Backend, Changes, Error, Load, Loaded, Snapshot, Written};
use tokio::runtime::Runtime;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::connection::Connection;
use crate::errors::Fault;
use crate::floors::Floors;
use crate::lease::{self, Replica};
use crate::ownership::Ownership;
use crate::rows::{SHARD, decoded, get, key, route};
use crate::session::{SNAPSHOT_TIMEOUT, Session};
use crate::statements::Statements;
use crate::takeover::{RELEASE_TIMEOUT, Wait, own};
use crate::target::Target;
use crate::{Shared, loads, snapshot, sql};

/// Connection of the shard's owner, with its state.
pub struct Writer {
    /// Drives the connection within each call, on the thread of the caller. `None` only while it is dropped.
    runtime: Option<Runtime>,
    connection: Connection,
    /// Where the timer of the lease runs, and the readers.
    shared: Arc<Shared>,
    keeper: tokio::task::JoinHandle<()>,
    /// Revision that the database is known to have had before, if commits are missing.
    lost: Option<u64>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("replica", &self.connection.replica)
            .field("epoch", &self.connection.epoch)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Takes the shard over on a checked database, and starts to renew its lease.
    pub(crate) fn take_over(
        target: Target,
        replica: Replica,
        wait: &Wait,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let runtime = crate::session::runtime(tokio::runtime::Builder::new_current_thread())?;
        let ownership = Arc::new(Ownership::default());
        let taken = runtime.block_on(own(&target, &replica, wait, &ownership)).map_err(Fault::into_error)?;
        let keeper = shared.enter(|| lease::start(target.clone(), replica.clone(), Arc::clone(&ownership)));
        let lost = taken.lost.map(unsigned);
        let connection = Connection::new(target, replica, ownership, taken);
        let mut writer = Self { runtime: Some(runtime), connection, shared, keeper, lost };
        writer.repair()?;
        Ok(writer)
    }

    /// Returns the runtime in which the lease is renewed.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Returns the id of this owner.
    pub(crate) fn id(&self) -> Uuid {
        self.connection.replica.id
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.connection.epoch
    }

    /// Returns the revision that the database is known to have had before, if commits are missing.
    pub(crate) fn lost(&self) -> Option<u64> {
        self.lost
    }

    /// Returns the time of the database.
    pub(crate) fn clock(&self) -> rota_store::single_writer::Clock {
        let ownership = Arc::clone(&self.connection.ownership);
        Arc::new(move || ownership.clock.now())
    }

    /// Executes a call on the connection. The loss of the shard ends it, whatever it waits for: the next owner takes workers that stay
    /// with this one for lost.
    fn block_on<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let runtime = self.runtime.as_ref().ok_or(Error::Closed)?;
        let ownership = Arc::clone(&self.connection.ownership);
        let called = call(&mut self.connection);
        runtime.block_on(async {
            tokio::select! {
                biased;
                why = ownership.lost() => Err(why),
                result = called => result,
            }
        })
    }

    /// Puts records that can be decoded again, for example after a downgrade was undone, back where they belong.
    fn repair(&mut self) -> Result<(), Error> {
        self.block_on(async |connection| {
            let rows =
                connection.read(async |session, _| session.query(sql::UNDECODABLE, &[&SHARD]).await).await?;
            let mut repaired = Vec::new();
            for row in &rows {
                let of = key(row, 1).map_err(Fault::into_error)?;
                if let Ok(task) = decoded(of, row, 3).map_err(Fault::into_error)? {
                    repaired.push((Arc::new(task), route(row, 0).map_err(Fault::into_error)?));
                }
            }
            let found =
                connection.read(async |session, _| session.query(sql::SHARD, &[&SHARD]).await).await?;
            let found = found.first().ok_or(Error::Deposed)?;
            let last = last_commit(found).map_err(Fault::into_error)?;
            if let Some(at) = last.written_at {
                connection.ownership.clock.not_before(at);
            }
            let aside =
                connection.read(async |session, _| session.query(sql::ASIDE, &[&SHARD]).await).await?;
            if repaired.is_empty() && aside.is_empty() {
                return Ok(());
            }
            let changes = Changes {
                before: last.revision,
                revision: last.revision + 1,
                now: last.written_at.unwrap_or(Timestamp(0)),
                last_route: last.last_route,
                ..Changes::default()
            };
            let statements = Statements::repair(&repaired)?;
            connection.commit(&changes, &statements).await.map(drop)
        })
    }
}

/// Last commit of the shard.
struct LastCommit {
    revision: u64,
    last_route: u32,
    written_at: Option<Timestamp>,
}

fn last_commit(row: &Row) -> Result<LastCommit, Fault> {
    Ok(LastCommit {
        revision: unsigned(get(row, 0)?),
        last_route: u32::try_from(get::<i32>(row, 1)?).unwrap_or(0),
        written_at: get::<Option<i64>>(row, 2)?.map(Timestamp),
    })
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
        let next_due = match *known {
            Some(workflows) => due.tasks.into_iter().chain(workflows).min().map(Timestamp),
            // What is due is looked up soon.
            None => Some(changes.now),
        };
        Ok(Written { next_due })
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.block_on(async |connection| {
            let read = async |session: &Session, _: &mut Floors| {
                Box::pin(snapshot::read(&session.client, session.prepared(), false)).await
            };
            connection.read_within(SNAPSHOT_TIMEOUT, read).await
        })
    }

    fn stored_revision(&mut self) -> Result<u64, Error> {
        self.block_on(async |connection| {
            let rows = connection.read(async |session, _| session.query(sql::SHARD, &[&SHARD]).await).await?;
            let revision = rows.first().map(|row| crate::rows::get(row, 0)).transpose();
            Ok(unsigned(revision.map_err(Fault::into_error)?.unwrap_or(0)))
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
