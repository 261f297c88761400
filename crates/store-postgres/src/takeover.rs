//! Start of an owner: the wait for the shard, through losses of the connection, until it is taken or the wait is stopped.

use std::time::Duration;

use rota_store::Error;
use tokio_util::sync::CancellationToken;

use crate::Admission;
use crate::connection::{open, revision};
use crate::errors::Fault;
use crate::first::{OnAway, is_final};
use crate::lease::{self, OnWait, Replica};
use crate::ownership::Ownership;
use crate::rows::SHARD;
use crate::session::{Session, bounded};
use crate::sql;
use crate::target::Target;

/// Pause between attempts to reach the database.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// Time for the shard to be given back.
pub(crate) const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits of the wait for the shard.
#[derive(Clone)]
pub(crate) struct Wait {
    pub(crate) patience: Option<Duration>,
    pub(crate) on_wait: OnWait,
    pub(crate) on_away: OnAway,
    pub(crate) admission: Option<Admission>,
    /// Ends the wait with [`Error::Closed`].
    pub(crate) stop: CancellationToken,
}

/// What a control plane has that has just become the owner.
pub(crate) struct Taken {
    pub(crate) session: Session,
    pub(crate) epoch: i64,
    /// Revision of the last commit, to which no earlier owner can add one.
    pub(crate) revision: i64,
    /// Revision that the database is known to have had, if it lacks commits up to there.
    pub(crate) lost: Option<i64>,
}

/// Takes the shard over, once it is free. A database that is lost meanwhile is waited for.
pub(crate) async fn own(
    target: &Target,
    replica: &Replica,
    wait: &Wait,
    ownership: &Ownership,
) -> Result<Taken, Fault> {
    let mut connected = false;
    let mut seen = 0;
    loop {
        let mut opened = None;
        let attempt = async {
            let session = opened.insert(open(target, replica.id).await?);
            let Wait { patience, on_wait, admission, .. } = wait;
            lease::acquire(session, replica, *patience, on_wait, admission.as_ref(), &mut seen).await?;
            // The number that it was taken with may be one that the database has given out before, and lost.
            let epoch = bounded(lease::reclaim(session, replica.id)).await?.ok_or(Error::Deposed)?;
            bounded(lease::sync(session, replica.id, ownership)).await?;
            let reached: Option<i64> =
                bounded(async { Ok(session.client.query_one(sql::REACHED, &[&SHARD]).await?.try_get(0)?) })
                    .await?;
            let revision = bounded(revision(session)).await?;
            Ok::<_, Fault>((epoch, revision, reached.max(Some(seen)).filter(|known| *known > revision)))
        };
        let stopped = Err(Fault::Store(Error::Closed));
        let taken = wait.stop.run_until_cancelled(attempt).await.unwrap_or(stopped);
        connected |= opened.is_some();
        match (taken, opened) {
            (Ok((epoch, revision, lost)), Some(session)) => {
                return Ok(Taken { session, epoch, revision, lost });
            }
            (Err(fault), _)
                if connected && fault.is_lost() && !is_final(&fault) && wait.patience.is_none() =>
            {
                let error = fault.into_error();
                (wait.on_wait)(None);
                (wait.on_away)(&error);
                tracing::warn!(%error, "lost the database while waiting for it");
                wait.stop.run_until_cancelled(tokio::time::sleep(RECONNECT_INTERVAL)).await;
            }
            (taken, opened) => {
                // Also what was sent before the wait was stopped.
                if let Some(session) = opened {
                    let released = lease::release(&session, replica.id);
                    drop(tokio::time::timeout(RELEASE_TIMEOUT, released).await);
                }
                return Err(taken.err().unwrap_or(Fault::Store(Error::Closed)));
            }
        }
    }
}
