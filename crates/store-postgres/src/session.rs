//! A connection with the settings that the store needs, and the checks of the server behind it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Connect, Hook, HookError};
use futures::future::{BoxFuture, try_join_all};
use rota_store::Error;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, Statement};

use crate::errors::{Fault, unavailable};
use crate::target::Target;

/// Oldest version of PostgreSQL that is supported.
const MIN_VERSION: i32 = 150_000;
/// Time for one connection with its settings, over all hosts.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a load, or a commit.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for the state that is kept in memory, with the numbers of queued tasks: these are counted.
pub(crate) const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);

/// Settings of each session. The time within a transaction covers the reception of one large message over a slow link, and is that
/// for which the answer to a commit is awaited: those that take a shard over end a frozen owner's session. Statements use indexes and nested loops only: a plan is made once, perhaps for a table that is
/// nearly empty, and kept.
pub(crate) const SETTINGS: &str = "SET search_path = rota;
    SET client_min_messages = warning;
    SET synchronous_commit = on;
    SET default_transaction_isolation = 'read committed';
    SET default_transaction_read_only = off;
    SET idle_in_transaction_session_timeout = '30s';
    SET statement_timeout = 0;
    SET lock_timeout = '2s';
    SET tcp_user_timeout = '10s';
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off";

pub(crate) struct Session {
    pub(crate) client: Client,
    /// Warnings of the server so far. One that comes with a commit leaves it in doubt.
    warnings: Arc<AtomicU64>,
    /// Wakes those who listen to a channel of the database.
    notified: Arc<Notify>,
    statements: HashMap<&'static str, Statement>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to the primary within the current runtime. One that a failover has replaced is refused.
    pub(crate) async fn open(target: &Target, application: &str) -> Result<Self, Fault> {
        let opened = async {
            let (client, connection) = target.config(application).connect(target.tls()).await?;
            let warnings = Arc::new(AtomicU64::new(0));
            let notified = Arc::new(Notify::new());
            let driven = drive(connection, Arc::clone(&warnings), Arc::clone(&notified));
            spawn("store-connection", OnExit::Done, driven);
            client.batch_execute(SETTINGS).await?;
            target.timeline().check(&client).await?;
            // None of the settings has led to a warning that counts.
            Ok(Self { client, warnings, notified, statements: HashMap::new() })
        };
        tokio::time::timeout(OPEN_TIMEOUT, opened).await.unwrap_or(Err(Fault::Timeout))
    }

    /// Prepares statements, in one round trip.
    pub(crate) async fn prepare(&mut self, statements: &[&'static str]) -> Result<(), Fault> {
        let prepared = try_join_all(statements.iter().map(|sql| self.client.prepare(sql)));
        let prepared = tokio::time::timeout(ANSWER_TIMEOUT, prepared).await.map_err(|_| Fault::Timeout)??;
        self.statements.extend(statements.iter().copied().zip(prepared));
        Ok(())
    }

    pub(crate) fn prepared(&self) -> &HashMap<&'static str, Statement> {
        &self.statements
    }

    pub(crate) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }

    /// Waits for a notification since the last call.
    pub(crate) async fn notified(&self) {
        self.notified.notified().await;
    }

    fn statement(&self, sql: &'static str) -> Result<&Statement, Fault> {
        let missing = || Fault::Store(unavailable("a statement was not prepared".to_owned(), "report this"));
        self.statements.get(sql).ok_or_else(missing)
    }

    /// Executes a prepared statement. It is sent when this is first polled.
    pub(crate) async fn query(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        Ok(self.client.query(self.statement(sql)?, params).await?)
    }
}

/// Opens connections of a pool, each with the password of the moment.
pub(crate) struct Connector {
    pub(crate) target: Target,
    pub(crate) application: &'static str,
}

impl Connector {
    /// Returns what a pool does with a new connection: sets it up for reads, and checks the server.
    pub(crate) fn begin(&self) -> Hook {
        let settings =
            format!("{SETTINGS}; SET default_transaction_read_only = on; SET statement_timeout = '30s'");
        let timeline = self.target.timeline().clone();
        Hook::async_fn(move |client: &mut ClientWrapper, _| {
            let (settings, timeline) = (settings.clone(), timeline.clone());
            Box::pin(async move {
                client.batch_execute(&settings).await.map_err(HookError::Backend)?;
                timeline.check(client).await.map_err(|fault| match fault {
                    Fault::Database(error) => HookError::Backend(error),
                    other => HookError::message(other.into_error().to_string()),
                })
            })
        })
    }
}

impl Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(async move {
            let config = self.target.config(self.application);
            let (client, connection) = config.connect(self.target.tls()).await?;
            let driven = spawn("store-reader", OnExit::Done, async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the database has ended");
                }
            });
            Ok((client, driven))
        })
    }
}

/// Drives a connection until it ends, counts the warnings, and passes notifications on. A warning that comes before the answer to a
/// statement is counted before the answer is received.
async fn drive<S, T>(mut connection: Connection<S, T>, warnings: Arc<AtomicU64>, notified: Arc<Notify>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                if notice.parsed_severity().is_none_or(|severity| severity == Severity::Warning) {
                    tracing::warn!(
                        message = notice.message(),
                        code = notice.code().code(),
                        "warning of the database"
                    );
                    warnings.fetch_add(1, Ordering::Release);
                }
            }
            Ok(AsyncMessage::Notification(_)) => notified.notify_one(),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to the database has ended");
                return;
            }
        }
    }
}

/// Checks that a server keeps what it acknowledges. One that takes no writes, such as a standby, is refused by the connection.
pub(crate) async fn check_server(session: &Session) -> Result<(), Fault> {
    let sql = "SELECT current_setting('server_version_num')::int4, current_setting('fsync'),
        current_setting('full_page_writes')";
    let row = session.client.query_one(sql, &[]).await?;
    let refused = |message: String, hint| Err(Fault::Store(unavailable(message, hint)));
    let version: i32 = row.try_get(0)?;
    if version < MIN_VERSION {
        return refused(format!("PostgreSQL {} is too old", version / 10_000), "use PostgreSQL 15 or later");
    }
    if row.try_get::<_, &str>(1)? != "on" {
        return refused(
            "the database runs with fsync=off, and loses acknowledged tasks in a crash".to_owned(),
            "set fsync=on in postgresql.conf",
        );
    }
    if row.try_get::<_, &str>(2)? != "on" {
        tracing::warn!("the database runs with full_page_writes=off: a crash may damage it");
    }
    Ok(())
}

/// Refuses a pooler that gives the statements of one connection to several sessions: their settings and prepared statements
/// are lost, and with them the promise that a commit is on the disk. While both connections are within a transaction, each has a
/// backend of its own; afterwards the first must still have its.
pub(crate) async fn refuse_pooler(one: &Session, other: &Session) -> Result<(), Fault> {
    let pooled = || {
        let message =
            "the database is reached through a pooler in transaction mode, such as pgbouncer".to_owned();
        Fault::Store(unavailable(message, "connect to the database itself, or set pool_mode=session"))
    };
    let looked = async {
        one.client.batch_execute("BEGIN").await?;
        let first = backend(one).await?;
        other.client.batch_execute("BEGIN").await?;
        let second = backend(other).await?;
        one.client.batch_execute("COMMIT").await?;
        other.client.batch_execute("COMMIT").await?;
        let mut same = first != second;
        for _ in 0..4 {
            same &= backend(one).await? == first;
        }
        Ok::<_, Fault>(same)
    };
    match tokio::time::timeout(Duration::from_secs(5), looked).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(pooled()),
        Ok(Err(fault)) => Err(fault),
        // The second transaction waits for the backend of the first.
        Err(_) => Err(pooled()),
    }
}

async fn backend(session: &Session) -> Result<i32, Fault> {
    Ok(session.client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?)
}

/// Waits for an answer, with a bound.
pub(crate) async fn bounded<T>(answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    within(ANSWER_TIMEOUT, answer).await
}

/// Waits for an answer, with a bound of its own.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Fault::Timeout))
}

/// Returns a runtime for connections.
pub(crate) fn runtime(mut builder: tokio::runtime::Builder) -> Result<tokio::runtime::Runtime, Error> {
    builder.enable_all().build().map_err(|error| {
        unavailable(
            format!("failed to start the runtime of the store: {error}"),
            "raise the limits of the process",
        )
    })
}
