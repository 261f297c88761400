//! The connection of the shard's owner. It is opened again after it was lost, and then it is found out what has become of the last
//! commit.

use std::time::Duration;

use rota_store::codec::{encode, signed};
use rota_store::{Changes, Error};
use tokio::time::Instant;
use uuid::Uuid;

use crate::commit::{Advance, AskDue, NextDue, deposed, in_doubt, next_due, send};
use crate::errors::Fault;
use crate::floors::Floors;
use crate::lease::{self, Replica, writer_name};
use crate::ownership::Ownership;
use crate::rows::SHARD;
use crate::session::{ANSWER_TIMEOUT, Session, bounded, check_server, within};
use crate::sql;
use crate::statements::Statements;
use crate::takeover::Taken;
use crate::target::Target;

/// Time for which a call waits for a database that has just been lost, such as one that is restarted.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Attempts at one commit, each after one that is known to have failed.
const MAX_ATTEMPTS: u32 = 3;

pub(crate) struct Connection {
    target: Target,
    pub(crate) replica: Replica,
    pub(crate) epoch: i64,
    pub(crate) ownership: std::sync::Arc<Ownership>,
    pub(crate) session: Option<Session>,
    /// Revision of the last commit that is known to be made.
    revision: i64,
    /// Whether the last attempt to connect has failed: the next call does not wait again.
    down: bool,
    pub(crate) floors: Floors,
    /// Next deadline of workflows and steps, if it is known.
    pub(crate) workflow_due: Option<Option<i64>>,
}

/// Opens the session of a writer, on a server that may be another one than at the start, or have other settings.
pub(crate) async fn open(target: &Target, owner: Uuid) -> Result<Session, Fault> {
    let mut session = Session::open(target, &writer_name(owner)).await?;
    bounded(check_server(&session)).await?;
    session.prepare(sql::WRITER).await?;
    session.prepare(sql::WORKFLOW_WRITER).await?;
    session.prepare(sql::COLD).await?;
    Ok(session)
}

/// Reads the revision of the last commit.
pub(crate) async fn revision(session: &Session) -> Result<i64, Fault> {
    let rows = session.query(sql::SHARD, &[&SHARD]).await?;
    Ok(rows.first().ok_or(Error::Deposed)?.try_get(0)?)
}

impl Connection {
    pub(crate) fn new(
        target: Target,
        replica: Replica,
        ownership: std::sync::Arc<Ownership>,
        taken: Taken,
    ) -> Self {
        Self {
            target,
            replica,
            epoch: taken.epoch,
            ownership,
            session: Some(taken.session),
            revision: taken.revision,
            down: false,
            floors: Floors::default(),
            workflow_due: None,
        }
    }

    /// Returns the session; opens it again if it was lost.
    pub(crate) async fn session(&mut self) -> Result<&Session, Error> {
        if let Some(found) = self.connect().await?
            && found != self.revision
        {
            let error = self.unexpected(found).await;
            self.session = None;
            return Err(error);
        }
        self.session.as_ref().ok_or(Error::Closed)
    }

    /// Opens the session again if it was lost. Returns the revision of the database if so.
    async fn connect(&mut self) -> Result<Option<i64>, Error> {
        if self.session.as_ref().is_some_and(|session| !session.client.is_closed()) {
            return Ok(None);
        }
        self.session = None;
        let opened = self.reopen().await;
        self.down = opened.is_err();
        let (session, found) = opened?;
        self.session = Some(session);
        Ok(Some(found))
    }

    /// Opens a session and raises the epoch, so that no earlier session of this process can commit any more: the revision that is
    /// read then is final.
    async fn reopen(&mut self) -> Result<(Session, i64), Error> {
        let began = Instant::now();
        let patience = if self.down { Duration::ZERO } else { RECONNECT_PATIENCE };
        loop {
            let owner = self.replica.id;
            let opened = bounded(async {
                let session = open(&self.target, owner).await?;
                let epoch = lease::reclaim(&session, owner).await?.ok_or(Error::Deposed)?;
                let found = revision(&session).await?;
                Ok((session, epoch, found))
            });
            match opened.await {
                Ok((session, epoch, found)) => {
                    tracing::info!(epoch, "connected to the database again");
                    self.epoch = epoch;
                    return Ok((session, found));
                }
                Err(Fault::Store(error)) if error.is_fatal() => return Err(error),
                Err(fault) if began.elapsed() >= patience => return Err(fault.into_error()),
                Err(_) => {}
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Executes a read. One whose connection was lost is repeated, once.
    pub(crate) async fn read<T>(
        &mut self,
        read: impl AsyncFn(&Session, &mut Floors) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.read_within(ANSWER_TIMEOUT, read).await
    }

    /// Executes a read that may take longer than others.
    pub(crate) async fn read_within<T>(
        &mut self,
        limit: Duration,
        read: impl AsyncFn(&Session, &mut Floors) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        for last in [false, true] {
            self.session().await?;
            let Some(session) = &self.session else { return Err(Error::Closed) };
            match within(limit, read(session, &mut self.floors)).await {
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
    /// the raised epoch, nothing of the earlier session can follow. One that cannot be opened now finds it out later, in
    /// [`Connection::session`].
    pub(crate) async fn commit(
        &mut self,
        changes: &Changes,
        statements: &Statements,
    ) -> Result<NextDue, Error> {
        let workflows = self.workflow_due.is_none() || statements.workflows;
        let ask = AskDue { tasks_from: self.floors.due(), workflows };
        let away = changes.away.as_ref().map(encode).transpose()?;
        let mut attempt = 1;
        loop {
            self.session().await?;
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
                Ok(due) => {
                    self.revision = advance.revision;
                    return Ok(due);
                }
                Err(fault) => fault,
            };
            if fault.is_fenced() {
                return Err(deposed(&fault));
            }
            let (lost, locked_out) = (fault.is_lost(), fault.is_locked_out());
            let error = fault.into_error();
            if lost {
                tracing::warn!(%error, attempt, "a commit is in doubt");
                self.session = None;
                let found = self.connect().await.map_err(doubtful)?.ok_or_else(in_doubt)?;
                if found == advance.revision {
                    tracing::info!(revision = found, "the commit in doubt was made");
                    self.revision = found;
                    return Ok(self.next_due(ask).await);
                }
                if found != advance.before {
                    return Err(self.unexpected(found).await);
                }
            }
            // From here on it is known not to be made.
            if attempt == MAX_ATTEMPTS || !(lost || locked_out) {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Reads the deadlines after a commit; earlier ones if that fails.
    async fn next_due(&self, ask: AskDue) -> NextDue {
        let known = match &self.session {
            Some(session) => bounded(next_due(session, ask)).await.ok(),
            None => None,
        };
        known.unwrap_or(NextDue { tasks: Some(ask.tasks_from), workflows: None })
    }

    /// Returns the error of a database whose last commit is not the last one that this owner knows of. Commits that are missing are
    /// noted, so that the next owner reports them.
    async fn unexpected(&self, found: i64) -> Error {
        let known = self.revision;
        if found > known {
            // Its caller was refused, and those who follow the commits do not have it.
            return Error::LostSync(
                "the connection to the database was lost, and the commit was made".to_owned(),
            );
        }
        tracing::error!(
            found,
            known,
            "history_lost: the database lacks commits: was it restored, or replaced by an asynchronous standby?"
        );
        if let Some(session) = &self.session {
            let owner = self.replica.id;
            let noted =
                async { Ok(session.client.execute(sql::NOTE_REACHED, &[&SHARD, &owner, &known]).await?) };
            if let Err(fault) = bounded(noted).await {
                tracing::warn!(error = %fault.into_error(), "failed to note the lost commits in the database");
            }
        }
        Error::Deposed
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
