//! Errors of PostgreSQL: their causes and remedies, and which of them leave a commit in doubt.

use std::io;

use rota_store::Error;
use tokio_postgres::error::{Severity, SqlState};

const READ_ONLY_HINT: &str = "the database is read-only, such as a standby: name the primary in the URL of the store, or wait until the standby is promoted";

/// Failure within a call: of the database, or of what it returned.
#[derive(Debug)]
pub(crate) enum Fault {
    Database(tokio_postgres::Error),
    /// The database did not answer in time.
    Timeout,
    /// A warning came with a commit: it may not be on the standby that it must wait for.
    Warned,
    /// The server is a primary that a failover has replaced.
    OldTimeline {
        found: i64,
        newest: i64,
    },
    Store(Error),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// Whether the connection is of no more use, and the outcome of what was sent is unknown.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Database(error) => is_lost(error),
            Self::Timeout | Self::Warned | Self::OldTimeline { .. } => true,
            Self::Store(_) => false,
        }
    }

    /// Returns the code of an error that the server has reported.
    pub(crate) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Database(error) => error.code(),
            _ => None,
        }
    }

    /// Whether another session held a lock for too long: the transaction was rolled back.
    pub(crate) fn is_locked_out(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether the fence of a shard has stopped a commit.
    pub(crate) fn is_fenced(&self) -> bool {
        self.code().is_some_and(|code| code.code().starts_with("RT00"))
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Database(error) => explain(&error),
            Self::Store(error) => error,
            Self::Timeout => unavailable(
                "the database does not answer".to_owned(),
                "check the database's load and the network; what was acknowledged is not lost",
            ),
            Self::Warned => unavailable(
                "the database does not confirm that a commit has reached its synchronous standby".to_owned(),
                "check the standby; what was acknowledged is not lost",
            ),
            Self::OldTimeline { found, newest } => unavailable(
                format!(
                    "the server of the database is on timeline {found}, and this process has seen timeline {newest}: a failover has replaced that server"
                ),
                "stop the replaced server, or make it a standby of its successor; if it is the right one, restart all replicas",
            ),
        }
    }
}

pub(crate) fn unavailable(message: String, hint: &'static str) -> Error {
    Error::Unavailable { message, hint }
}

fn is_lost(error: &tokio_postgres::Error) -> bool {
    // Without an error of the server, nothing was read to its end.
    error.as_db_error().is_none_or(|reported| {
        // Such an error ends the session, or the whole server, and may come while a commit is made.
        matches!(reported.parsed_severity(), Some(Severity::Fatal | Severity::Panic) | None)
            || reported.code().code().starts_with("08")
    })
}

/// Whether a host was refused since it takes no writes, by the client itself and not by the operating system.
fn is_read_only(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| {
        error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
    })
}

/// Translates an error into a cause and a remedy.
pub(crate) fn explain(error: &tokio_postgres::Error) -> Error {
    let Some(database) = error.as_db_error() else {
        let source = std::error::Error::source(error);
        let cause = source.map_or_else(|| error.to_string(), ToString::to_string);
        let hint = if source.is_some_and(is_read_only) {
            READ_ONLY_HINT
        } else {
            "check that the database runs, and its address, network policies and certificates"
        };
        return unavailable(format!("no connection to the database ({cause})"), hint);
    };
    let code = database.code();
    let hint = match code.code() {
        "28P01" | "28000" => "check the user and the password of the store, and pg_hba.conf",
        "3D000" => "create the database, or correct its name in the URL of the store",
        "42501" => {
            "the user of the store needs the right to create a schema in the database: GRANT CREATE ON DATABASE"
        }
        "53100" => "free space on the volume of the database; what was acknowledged is not lost",
        "53300" => "raise max_connections of the database, or end other connections",
        "57P03" => "the database is starting or stopping: wait, and read its log if that lasts",
        "25006" => READ_ONLY_HINT,
        "08P01" => "connect to the database itself, not through a pooler in transaction mode",
        "3F000" | "42P01" | "42883" => {
            "the schema of the store is incomplete: restore the database from a backup"
        }
        "XX001" | "XX002" => {
            return Error::Corrupt(format!("the database is damaged: {}", database.message()));
        }
        _ if code.code().starts_with("57P") => "the database has ended the connection; it is opened again",
        _ => "read the log of the database",
    };
    unavailable(format!("{} (SQLSTATE {})", database.message(), code.code()), hint)
}
