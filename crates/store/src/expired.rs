//! What a prune reads: the expired rows of each kind.

use rota_core::{TaskKey, Timestamp};

use crate::snapshot::Read;
use crate::{DamagedObject, LogSize, NameKey, SessionKey, Stored, TaskRow, Thread};

/// Place of an expired row of a kind: its date, then its namespace and its name as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredPlace {
    pub at: Timestamp,
    pub namespace: String,
    pub name: String,
}

impl Default for ExpiredPlace {
    /// Returns the place before all rows.
    fn default() -> Self {
        Self { at: Timestamp(i64::MIN), namespace: String::new(), name: String::new() }
    }
}

/// The last of the rows of each kind that a prune has passed because their names are not valid. They stay the oldest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedRows {
    pub sessions: ExpiredPlace,
    pub keys: ExpiredPlace,
    pub threads: ExpiredPlace,
}

/// What a prune reads: the oldest rows of each kind that ended before a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredPage {
    /// Bound for tasks, and for keys whose task was removed; `None` reads neither.
    pub ended_before: Option<Timestamp>,
    /// Exclusive lower bound for tasks: the end and key of the last one of the previous page.
    pub after: Option<(Timestamp, TaskKey)>,
    /// Exclusive lower bounds for sessions, keys and threads.
    pub passed: PassedRows,
    /// Bound for the end of sessions.
    pub left_before: Timestamp,
    /// Largest number of rows of each kind.
    pub limit: usize,
    /// Bound of the logs of the tasks that no other task needs: the page ends with the one that exceeds it.
    pub logs: LogSize,
}

/// Row of a task whose retention is over.
#[derive(Debug, Clone)]
pub struct ExpiredRow {
    pub ended_at: Timestamp,
    pub row: TaskRow,
}

/// Expired rows of each kind, oldest first.
#[derive(Debug, Clone, Default)]
pub struct ExpiredRows {
    pub tasks: Vec<ExpiredRow>,
    /// Whether there may be more tasks.
    pub more_tasks: bool,
    pub keys: Vec<NameKey>,
    /// Threads that no task has used since [`THREAD_TTL`](crate::THREAD_TTL) before the bound for tasks.
    pub threads: Vec<(NameKey, Stored<Thread>)>,
    pub sessions: Vec<SessionKey>,
    /// Whether there may be more keys, threads or sessions.
    pub more_names: bool,
    /// Bounds of the next page.
    pub passed: PassedRows,
    /// Rows whose names are not valid, with the reason. They stay.
    pub damaged: Vec<(DamagedObject, String)>,
}

impl ExpiredRows {
    /// Returns the rows of a page of a kind whose names are valid, and adds the others to the damaged ones. Those in front of the
    /// first valid row are passed: the next page begins behind them.
    pub fn pass_damaged<T>(
        &mut self,
        page: Vec<(Timestamp, Read<T>)>,
        limit: usize,
        passed: fn(&mut PassedRows) -> &mut ExpiredPlace,
    ) -> Vec<T> {
        self.more_names |= page.len() >= limit;
        let mut valid = Vec::new();
        for (at, row) in page {
            match row {
                Ok(row) => valid.push(row),
                Err((object, reason)) => {
                    if valid.is_empty()
                        && let DamagedObject::Expired(_, namespace, name) = &object
                    {
                        let (namespace, name) = (namespace.clone(), name.clone());
                        *passed(&mut self.passed) = ExpiredPlace { at, namespace, name };
                    }
                    self.damaged.push((object, reason));
                }
            }
        }
        valid
    }
}
