//! Ownership of the shard: a lease by the clock of the database, which a timer renews. Who owns the shard is decided by the
//! epoch that each commit checks; the lease only decides when another control plane may raise it.

use std::sync::Arc;
use std::time::Duration;

use rota_core::time::micros;
use rota_store::Error;
use rota_telemetry::{OnExit, spawn};
use semver::Version;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::clock::since_boot;
use crate::errors::{Fault, unavailable};
use crate::ownership::Ownership;
use crate::rows::SHARD;
use crate::seen_lease::SeenLease;
use crate::session::{OPEN_TIMEOUT, Session, bounded};
use crate::sql;
use crate::target::Target;
use crate::{Admission, documents, migrate};

/// Time after the last renewal for which no other control plane takes the shard.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
const RENEW_INTERVAL: Duration = Duration::from_millis(2500);
/// Time for a renewal on an open session. One that needs longer is replaced.
const RENEW_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between looks at the lease of another control plane: a clean stop of it is noticed soon.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Looks at which a free shard is left to a control plane of a newer version. One that does not take it may be frozen.
const MAX_YIELDS: u32 = 5;
/// Interval between lines in the log about the wait for another control plane.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Name of the session that writes for an owner.
pub(crate) fn writer_name(owner: Uuid) -> String {
    format!("rota-writer {owner}")
}

/// Name of the session with which an owner exports or imports.
pub(crate) fn transfer_name(owner: Uuid) -> String {
    format!("rota-transfer {owner}")
}

/// Ends the other sessions of an owner that may hold the shard's lock.
async fn end_sessions(session: &Session, owner: Uuid) -> Result<(), Fault> {
    let names = [writer_name(owner), transfer_name(owner)];
    session.client.execute(sql::END_SESSIONS, &[&names.as_slice()]).await?;
    Ok(())
}

/// Identity of a control plane as an owner. Each opening has another one.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where others reach it, as `HOST:PORT`; empty if they do not.
    pub(crate) address: String,
}

impl Replica {
    /// Returns what others see of this one once it owns the shard.
    fn as_owner(&self) -> Owner {
        Owner { name: self.name.clone(), address: self.address.clone() }
    }
}

pub(crate) async fn register(session: &Session, replica: &Replica, statement: &str) -> Result<(), Fault> {
    let lease = millis(LEASE);
    session
        .client
        .execute(statement, &[&replica.id, &replica.name, &replica.version, &replica.address, &lease])
        .await?;
    Ok(())
}

/// Lets the owner know of a control plane that has just registered. One that was cut off from the database before it knew would
/// take itself for alone, and keep its workers until the database is back.
async fn announce(session: &Session) -> Result<(), Fault> {
    session.client.execute(sql::ANNOUNCE, &[]).await?;
    Ok(())
}

/// The control plane that owns the shard, as one that waits for it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    /// Where it is reached, as `HOST:PORT`; empty if it is not.
    pub address: String,
}

/// Called with the owner, or `None` if there is none or the database cannot be reached, at each look of a control plane that
/// waits for the shard.
pub type OnWait = Arc<dyn Fn(Option<&Owner>) + Send + Sync>;

/// Outcome of a look at the shard.
enum Look {
    /// The shard is this control plane's, with this epoch.
    Owned(i64),
    /// Another one has it, for so many milliseconds. `None` if it cannot be named.
    Held(Option<Owner>, i64),
}

/// What a control plane that waits for the shard has seen so far.
struct Seen<'a> {
    /// Revision of the last commit.
    revision: &'a mut i64,
    lease: SeenLease,
    /// How often a free shard was left to a newer version.
    yields: u32,
}

/// Takes the shard once its owner has released it or lost its lease. Returns the epoch. `patience` limits the wait, and a document of the
/// owner that does not fit `admission` ends it; `seen` has the last commit that was seen meanwhile.
pub(crate) async fn acquire(
    session: &Session,
    replica: &Replica,
    patience: Option<Duration>,
    on_wait: &OnWait,
    admission: Option<&Admission>,
    seen: &mut i64,
) -> Result<i64, Fault> {
    let began = Instant::now();
    let mut reported: Option<Instant> = None;
    let mut renewed: Option<Instant> = None;
    let mut has_waited = false;
    let mut is_admitted = false;
    let mut seen = Seen { revision: seen, lease: SeenLease::default(), yields: 0 };
    loop {
        // One that waits must not be taken for a lost one once it owns the shard.
        if renewed.is_none_or(|at| at.elapsed() >= RENEW_INTERVAL) {
            bounded(register(session, replica, sql::REGISTER)).await?;
            if renewed.is_none() {
                bounded(announce(session)).await?;
            }
            renewed = Some(Instant::now());
        }
        let (owner, left) = match bounded(look(session, replica, &mut seen)).await {
            Ok(Look::Owned(epoch)) => {
                // Passed on to the owner before, connections would now go around between it and this replica.
                if has_waited {
                    on_wait(Some(&replica.as_owner()));
                }
                return Ok(epoch);
            }
            Ok(Look::Held(owner, left)) => (owner, left),
            // A commit holds the row: that of a process that was frozen in the middle of it, if its lease is over.
            Err(fault) if fault.is_locked_out() => {
                bounded(end_expired_owner(session)).await?;
                (None, 0)
            }
            Err(fault) => return Err(fault),
        };
        on_wait(owner.as_ref());
        has_waited = true;
        // The owner of an empty database stores the document only after it has taken the shard.
        if let Some(admission) = admission.filter(|_| !is_admitted) {
            is_admitted = bounded(documents::admit(session, admission)).await?;
        }
        let owner = owner.map_or_else(|| "another process".to_owned(), |owner| owner.name);
        if patience.is_some_and(|patience| began.elapsed() >= patience) {
            let message = format!("the database is in use by the control plane {owner:?}");
            return Err(Fault::Store(unavailable(
                message,
                "stop the other control plane, or use another database",
            )));
        }
        if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            reported = Some(Instant::now());
            tracing::info!(
                owner,
                lease_left_ms = left,
                "waiting for another control plane that owns the database"
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Looks at the owner, without a lock that its commits would wait for, and takes the shard if it is free.
async fn look(session: &Session, replica: &Replica, seen: &mut Seen<'_>) -> Result<Look, Fault> {
    let row = session.client.query_one(sql::OWNER, &[&SHARD]).await?;
    *seen.revision = row.try_get::<_, Option<i64>>(4)?.unwrap_or(0).max(*seen.revision);
    let owner: Option<Uuid> = row.try_get(0)?;
    // The answer by which this control plane became the owner was lost.
    if owner == Some(replica.id)
        && let Some(epoch) = reclaim(session, replica.id).await?
    {
        return Ok(Look::Owned(epoch));
    }
    if let Some(held) = held(&row)? {
        let (Some(owner), Some(expires)) = (owner, row.try_get::<_, Option<i64>>(5)?) else {
            return Ok(held);
        };
        if !seen.lease.is_over((owner, expires), since_boot()) {
            return Ok(held);
        }
        if end_lease(session, owner, expires).await? {
            tracing::warn!(%owner, "ended a lease that its owner does not renew: the clock of the database was set back");
        }
    }
    if seen.yields < MAX_YIELDS && newer_waits(session, replica).await? {
        seen.yields += 1;
        return Ok(Look::Held(None, 0));
    }
    let row = session.client.query_opt(sql::ACQUIRE, &[&SHARD, &replica.id, &migrate::latest()]).await?;
    let row = row.ok_or_else(migrate::too_new)?;
    match row.try_get(0)? {
        Some(epoch) => Ok(Look::Owned(epoch)),
        None => Ok(held(&row)?.unwrap_or(Look::Held(None, 0))),
    }
}

/// Ends a lease that ends at this time. Returns false if it was renewed since, or is over by the clock of the database as well.
pub(crate) async fn end_lease(session: &Session, owner: Uuid, expires: i64) -> Result<bool, Fault> {
    Ok(session.client.execute(sql::END_LEASE, &[&owner, &expires]).await? > 0)
}

/// Whether a control plane of a newer version waits for the shard, too.
async fn newer_waits(session: &Session, replica: &Replica) -> Result<bool, Fault> {
    let Ok(own) = Version::parse(&replica.version) else { return Ok(false) };
    for row in session.client.query(sql::WAITING, &[&replica.id, &millis(LEASE)]).await? {
        if Version::parse(row.try_get(0)?).is_ok_and(|other| other > own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the owner whose lease lasts, from its columns.
fn held(row: &Row) -> Result<Option<Look>, Fault> {
    let text = |column| Ok::<_, Fault>(row.try_get::<_, Option<String>>(column)?.unwrap_or_default());
    let Some(left @ 1..) = row.try_get::<_, Option<i64>>(3)? else { return Ok(None) };
    Ok(Some(Look::Held(Some(Owner { name: text(1)?, address: text(2)? }), left)))
}

/// Ends the sessions of an owner whose lease is over.
async fn end_expired_owner(session: &Session) -> Result<(), Fault> {
    if let Some(row) = session.client.query_opt(sql::EXPIRED_OWNER, &[&SHARD]).await? {
        let owner: Uuid = row.try_get(0)?;
        tracing::warn!(%owner, "ending the session of an owner whose lease is over");
        end_sessions(session, owner).await?;
    }
    Ok(())
}

/// Raises the epoch of a shard that this replica owns, so that nothing of its earlier sessions can be committed any more.
/// Returns the epoch; `None` if another control plane has taken the shard.
pub(crate) async fn reclaim(session: &Session, owner: Uuid) -> Result<Option<i64>, Fault> {
    end_sessions(session, owner).await?;
    let warnings = session.warnings();
    let row = session.client.query_opt(sql::RECLAIM, &[&SHARD, &owner]).await?;
    // The standby has this commit, and with it all before, or it is not known.
    if session.warnings() != warnings {
        return Err(Fault::Warned);
    }
    Ok(match row {
        Some(row) => Some(row.try_get(0)?),
        None => None,
    })
}

/// Gives the shard back, so that another control plane can take it immediately.
pub(crate) async fn release(session: &Session, owner: Uuid) -> Result<(), Fault> {
    session.client.execute(sql::RELEASE, &[&SHARD, &owner]).await?;
    session.client.execute(sql::UNREGISTER, &[&owner]).await?;
    Ok(())
}

/// Opens the session of the timer. Its commits wait for no standby: a lease that a failover loses is taken over, and the fence
/// stops the owner.
async fn open(target: &Target, replica: Uuid) -> Result<Session, Fault> {
    let session = Session::open(target, &format!("rota-lease {replica}")).await?;
    session.client.batch_execute("SET synchronous_commit = local").await?;
    session.client.batch_execute(sql::LISTEN).await?;
    Ok(session)
}

/// Renews the lease until the shard is lost. An owner that cannot reach the database for the time of its lease gives the shard up, if
/// another control plane can have taken it: its workers would wait for it in vain, and be taken for lost. One that has seen no other
/// lately waits for the database.
pub(crate) async fn keep(target: Target, replica: Replica, ownership: Arc<Ownership>, interval: Duration) {
    let mut session: Option<Session> = None;
    let mut failing = false;
    // A restart would forget the newer timeline, and use the replaced server.
    let mut is_replaced = false;
    // Since the request, which the database has answered later.
    let mut renewed_at = since_boot();
    loop {
        let began = since_boot();
        let renewed = async {
            // Has a bound of its own, since the first of several hosts may not answer.
            let session = match &mut session {
                Some(session) => session,
                none => none.insert(open(&target, replica.id).await?),
            };
            let renewed = renew(session, &replica, &ownership);
            tokio::time::timeout(RENEW_TIMEOUT, renewed).await.unwrap_or(Err(Fault::Timeout))
        };
        let limit = if ownership.has_rivals() && !is_replaced {
            LEASE.saturating_sub(Duration::from_micros((began - renewed_at).unsigned_abs()))
        } else {
            OPEN_TIMEOUT + RENEW_TIMEOUT
        };
        match tokio::time::timeout(limit, renewed).await.unwrap_or(Err(Fault::Timeout)) {
            Ok(true) => {
                renewed_at = began;
                if failing {
                    tracing::info!("the lease of the database is renewed again");
                }
                failing = false;
                is_replaced = false;
                let cleaned = async {
                    match &session {
                        Some(session) => clean(session).await,
                        None => Ok(()),
                    }
                };
                let cleaned = tokio::time::timeout(RENEW_TIMEOUT, cleaned).await;
                if let Err(fault) = cleaned.unwrap_or(Err(Fault::Timeout)) {
                    tracing::debug!(error = %fault.into_error(), "failed to remove old commits, retrying");
                    session = None;
                }
            }
            Ok(false) => {
                tracing::error!("another control plane has taken over the database; this one ends");
                ownership.lose(Error::Deposed);
                return;
            }
            Err(fault) => {
                session = None;
                is_replaced |= matches!(fault, Fault::OldTimeline { .. });
                if !failing {
                    tracing::warn!(error = %fault.into_error(), "failed to renew the lease of the database, retrying");
                }
                failing = true;
                if ownership.has_rivals() && !is_replaced && since_boot() - renewed_at > micros(LEASE) {
                    tracing::error!(
                        "the database is not reached for the time of the lease; this control plane ends"
                    );
                    ownership.lose(Error::LeaseLost);
                    return;
                }
            }
        }
        let pause = tokio::time::sleep(if failing { interval / 5 } else { interval });
        match &session {
            Some(session) => tokio::select! { () = pause => {}, () = session.notified() => {} },
            None => pause.await,
        }
    }
}

/// Renews the lease, and reads what [`sync`] reads. A lease that is over and was not taken is renewed like any other.
pub(crate) async fn renew(
    session: &Session,
    replica: &Replica,
    ownership: &Ownership,
) -> Result<bool, Fault> {
    // After a step of the clock, another replica may have forgotten this one just before it became the owner.
    if session.client.execute(sql::RENEW, &[&replica.id, &millis(LEASE)]).await? == 0 {
        register(session, replica, sql::REGISTER_OWNER).await?;
    }
    sync(session, replica.id, ownership).await
}

/// Removes old commits and replicas. A renewal does not depend on it.
async fn clean(session: &Session) -> Result<(), Fault> {
    session.client.execute(sql::FORGET_COMMITS, &[&SHARD]).await?;
    session.client.execute(sql::FORGET_REPLICAS, &[]).await?;
    Ok(())
}

/// Reads the clock of the database, and whether others wait for the shard. Returns whether it is still owned.
pub(crate) async fn sync(session: &Session, owner: Uuid, ownership: &Ownership) -> Result<bool, Fault> {
    let before = since_boot();
    let row = session.client.query_one(sql::OWNS, &[&SHARD, &owner, &millis(LEASE)]).await?;
    ownership.clock.sync(row.try_get(0)?, before, since_boot());
    if row.try_get::<_, bool>(2)? {
        ownership.see_rival();
    }
    Ok(row.try_get(1)?)
}

/// Starts the timer in the current runtime.
pub(crate) fn start(
    target: Target,
    replica: Replica,
    ownership: Arc<Ownership>,
) -> tokio::task::JoinHandle<()> {
    spawn("store-lease", OnExit::Done, keep(target, replica, ownership, RENEW_INTERVAL))
}
