//! What a control plane and an engine keep in memory, as a store has it at one moment.

use std::str::FromStr;

use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::Account;
use rota_core::target::Route;
use rota_core::task::Task;
use rota_core::{Epoch, RouteId, TaskId, TaskKey, Timestamp};
use uuid::Uuid;

use crate::{FollowUp, Session, Span, Stored};

/// State that a control plane keeps in memory.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Identity of the store, made with it. A copy of the store, such as a backup, has the same.
    pub store: Uuid,
    pub agents: Vec<Agent>,
    pub routes: Vec<(RouteId, Route)>,
    /// Number of ready tasks by route. A [`Backend`](crate::Backend) may leave it empty: its engine counts nothing.
    pub queued: Vec<(RouteId, u64)>,
    /// Number of tasks by route that wait for something else than a worker. A backend may leave it empty, too.
    pub pending: Vec<(RouteId, u64)>,
    pub sessions: Vec<Session>,
    pub on_workers: Vec<OnWorker>,
    /// Next deadline of any task that is not on a worker.
    pub next_due: Option<Timestamp>,
    /// Revision of the last commit.
    pub revision: u64,
    /// Highest id of a route that was ever assigned.
    pub last_route: u32,
    /// Time of the last write, if there was one.
    pub written_at: Option<Timestamp>,
    /// Times in which no worker could take a task, oldest first.
    pub away: Vec<Span>,
    /// Tasks whose record cannot be decoded, as far as they are on workers or were found before, with the reason.
    pub undecodable: Vec<(TaskKey, TaskId, String)>,
    /// Other objects whose record cannot be decoded, with the reason. They are missing from the lists above.
    pub damaged: Vec<(DamagedObject, String)>,
    /// Follow-ups that are left, by number. One that cannot be decoded is left alone.
    pub follow_ups: Vec<(u64, Stored<FollowUp>)>,
    pub cool_downs: Vec<CoolDown>,
    /// Books of agents and namespaces.
    pub accounts: Vec<Account>,
}

impl Snapshot {
    /// Returns the next deadline of any task.
    pub fn earliest_due(&self) -> Option<Timestamp> {
        let on_workers = self.on_workers.iter().filter_map(|on| on.task.due());
        on_workers.chain(self.next_due).min()
    }
}

/// A stored object, other than a task, whose record cannot be decoded. It is named by the columns of its row: a namespace,
/// then a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DamagedObject {
    Agent(String, String),
    /// An open session of a worker, which counts as closed.
    Session(String, String, Epoch),
    Route(RouteId),
    /// The cool-down of a credential.
    CoolDown(String, String),
    /// The books of an agent, or of the namespace if the name is empty.
    Account(String, String),
    /// An expired row, of the kind that is named first, whose names are not valid.
    Expired(&'static str, String, String),
}

impl std::fmt::Display for DamagedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(namespace, name) => write!(f, "agent {namespace}/{name}"),
            Self::Session(namespace, worker, _) => write!(f, "session of worker {namespace}/{worker}"),
            Self::Route(id) => write!(f, "route {}", id.0),
            Self::CoolDown(namespace, credential) => {
                write!(f, "cool-down of credential {namespace}/{credential}")
            }
            Self::Account(namespace, agent) if agent.is_empty() => {
                write!(f, "books of namespace {namespace}")
            }
            Self::Account(namespace, agent) => write!(f, "books of agent {namespace}/{agent}"),
            Self::Expired(kind, namespace, name) => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// A stored object as a snapshot reads it: its record, or what it is and why that cannot be decoded.
pub type Read<T> = Result<T, (DamagedObject, String)>;

/// Parses the namespace and the name of an expired row of a kind.
pub fn parse_names<N: FromStr, M: FromStr>(kind: &'static str, namespace: &str, name: &str) -> Read<(N, M)> {
    let pair = namespace.parse().ok().zip(name.parse().ok());
    pair.ok_or_else(|| {
        let object = DamagedObject::Expired(kind, namespace.to_owned(), name.to_owned());
        (object, "its name is not valid".to_owned())
    })
}

/// Returns the objects that were decoded, and adds the others to `damaged`.
pub fn decoded<T>(
    rows: impl IntoIterator<Item = Read<T>>,
    damaged: &mut Vec<(DamagedObject, String)>,
) -> Vec<T> {
    rows.into_iter().filter_map(|row| row.map_err(|one| damaged.push(one)).ok()).collect()
}

/// Task on a worker, as stored.
#[derive(Debug, Clone)]
pub struct OnWorker {
    pub route: RouteId,
    pub task: Task,
    /// Whether stored tasks depend on it.
    pub has_dependents: bool,
}
