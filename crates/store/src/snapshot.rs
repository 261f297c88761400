//! What a control plane and an engine keep in memory, as a store has it at one moment.

use rota_core::agent::Agent;
use rota_core::quota::CoolDown;
use rota_core::spending::Account;
use rota_core::target::Route;
use rota_core::task::Task;
use rota_core::{RouteId, TaskId, TaskKey, Timestamp};
use uuid::Uuid;

use crate::{FollowUp, Session, Span, Stored};

/// State that a control plane keeps in memory.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Identity of the store, made with it. A copy of the store, such as a backup, has the same.
    pub store: Uuid,
    pub agents: Vec<Agent>,
    pub routes: Vec<(RouteId, Route)>,
    /// Number of ready tasks by route.
    pub queued: Vec<(RouteId, u64)>,
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

/// Task on a worker, as stored.
#[derive(Debug, Clone)]
pub struct OnWorker {
    pub route: RouteId,
    pub task: Task,
    /// Whether stored tasks depend on it.
    pub has_dependents: bool,
}
