//! The first connection of a control plane to a database, which may be away: attempts with growing pauses, for a bounded time. Checks
//! the server and migrates the schema.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use rota_store::Error;
use tokio::time::Instant;

use crate::errors::Fault;
use crate::session::{Session, bounded, check_server, refuse_pooler};
use crate::{Options, documents, migrate};

/// First and longest pause between attempts.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Errors of a connection that only a person resolves: of the user, the password and the name of the database.
const FINAL: [&str; 4] = ["28000", "28P01", "3D000", "42501"];

/// Called with the reason each time the database is found to be away.
pub type OnAway = Arc<dyn Fn(&Error) + Send + Sync>;

/// Failed attempt, and whether the database may only be away.
struct Failed {
    error: Error,
    is_away: bool,
}

/// Whether only a person resolves a fault.
pub(crate) fn is_final(fault: &Fault) -> bool {
    fault.code().is_some_and(|code| FINAL.contains(&code.code()))
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { is_away: fault.is_lost() && !is_final(&fault), error: fault.into_error() }
    }
}

/// Connects, and checks everything that a control plane needs before it waits for the shard.
pub(crate) async fn check(options: &Options) -> Result<(), Error> {
    let began = Instant::now();
    let pauses = ExponentialBuilder::default()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .with_jitter();
    let attempts = (|| async { Box::pin(attempt(options)).await.map_err(Failed::from) })
        .retry(pauses)
        .when(|failed| failed.is_away && began.elapsed() < options.connect_timeout)
        .notify(|failed, pause| {
            let error = &failed.error;
            tracing::warn!(%error, ?pause, "the database is not reached, retrying");
            (options.on_away)(error);
        });
    match options.stop.run_until_cancelled(attempts).await {
        Some(checked) => checked.map_err(|failed| failed.error),
        None => Err(Error::Closed),
    }
}

async fn attempt(options: &Options) -> Result<(), Fault> {
    let session = Session::open(&options.target, "rota-open").await?;
    bounded(check_server(&session)).await?;
    let other = Session::open(&options.target, "rota-open").await?;
    refuse_pooler(&session, &other).await?;
    let was_store = bounded(migrate::is_store(&session.client)).await?;
    if was_store {
        // Before anything is read: its format may be newer, too.
        bounded(migrate::refuse_newer(&session.client)).await?;
        // One that is refused must not migrate, which may end the owner.
        admit(options, &session).await?;
    }
    migrate::to_latest(&session.client).await?;
    if !was_store {
        // Another one may have been first on the empty database, with a key of its own. If it stores that later, the wait for it ends.
        admit(options, &session).await?;
    }
    Ok(())
}

async fn admit(options: &Options, session: &Session) -> Result<(), Fault> {
    match &options.admission {
        Some(admission) => bounded(documents::admit(session, admission)).await.map(drop),
        None => Ok(()),
    }
}
