//! The connection of the shard's owner. It is opened again after it was lost, and then it is found out what has become of the last
//! commit.

use std::sync::Arc;
use std::time::Duration;

use rota_store::codec::{encode, signed};
use rota_store::{Changes, Error};
use tokio::time::Instant;
use uuid::Uuid;

use crate::commit::{Advance, AskDue, NextDue, deposed, in_doubt, next_due, send};
use crate::errors::Fault;
use crate::floors::Floors;
use crate::lease::{self, Ownership, Replica, writer_name};
use crate::rows::SHARD;
use crate::session::{Session, bounded};
use crate::sql;
use crate::statements::Statements;
use crate::target::Target;

/// Time for which a call waits for a database that has just been lost, such as one that is restarted.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Attempts at one commit, each on a connection of its own.
const MAX_ATTEMPTS: u32 = 3;

pub(crate) struct Connection {
    pub(crate) target: Target,
    pub(crate) replica: Replica,
    pub(crate) epoch: i64,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) session: Option<Session>,
    /// Whether the last attempt to connect has failed: the next call does not wait again.
    pub(crate) down: bool,
    pub(crate) floors: Floors,
    /// Next deadline of workflows and steps, if it is known.
    pub(crate) workflow_due: Option<Option<i64>>,
}

/// Opens the session of a writer.
pub(crate) async fn open(target: &Target, owner: Uuid) -> Result<Session, Fault> {
    let mut session = Session::open(target, &writer_name(owner)).await?;
    session.prepare(sql::WRITER).await?;
    session.prepare(sql::WORKFLOW_WRITER).await?;
    session.prepare(sql::COLD).await?;
    Ok(session)
}

impl Connection {
    fn owned(&self) -> Result<(), Error> {
        if self.ownership.is_lost() { Err(Error::Deposed) } else { Ok(()) }
    }

    /// Returns the session; opens it again if it was lost.
    pub(crate) async fn session(&mut self) -> Result<&Session, Error> {
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
    pub(crate) async fn read<T>(
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
    pub(crate) async fn commit(&mut self, changes: &Changes, statements: &Statements) -> Result<NextDue, Error> {
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

    /// Gives the shard back, unless it is known to be lost.
    pub(crate) async fn release(&mut self) {
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

/// The error of a commit whose outcome cannot be found out now.
fn doubtful(error: Error) -> Error {
    if error.is_fatal() { error } else { in_doubt() }
}
