//! The store as far as the scheduler depends on it: tasks that wait, and routes, whose ids are reused. It is ahead of the
//! commits that the scheduler has applied.

use std::collections::VecDeque;

use rota_core::RouteId;
use rota_core::task::{State, Task};
use rota_store::{Claim, Commit};

use super::fixture::{assign, change, first_id, route};
use super::world::ROUTES;

/// One more than there are routes, so that a route can be added again while its former id is in use.
const ROUTE_IDS: usize = ROUTES + 1;

pub(super) struct Store {
    queued: Vec<VecDeque<Task>>,
    /// The id of each route that exists.
    ids: Vec<Option<RouteId>>,
}

impl Store {
    pub(super) fn new() -> Self {
        let ids = (0..ROUTES).map(|number| Some(first_id(number))).collect();
        Self { queued: vec![VecDeque::new(); ROUTES], ids }
    }

    /// Returns the id of a route. A route that does not exist is added with the lowest free id.
    fn id(&mut self, commit: &mut Commit, route_number: usize) -> RouteId {
        if let Some(id) = self.ids[route_number] {
            return id;
        }
        let mut ids = (0..ROUTE_IDS).map(first_id);
        let free = ids.find(|id| !self.ids.contains(&Some(*id)) && !commit.removed_routes.contains(id));
        let id = free.expect("there are more ids than routes");
        commit.routes.push((id, route(route_number)));
        self.ids[route_number] = Some(id);
        id
    }

    /// Adds a changed task to a commit, with its route if that does not exist.
    pub(super) fn add(
        &mut self,
        commit: &mut Commit,
        task: Task,
        route_number: usize,
        before: Option<State>,
    ) {
        let assigned = task.state == State::Assigned;
        let id = self.id(commit, route_number);
        commit.tasks.push(change(task, id, before, assigned));
    }

    /// Creates a task that waits.
    pub(super) fn enqueue(&mut self, commit: &mut Commit, task: Task, route_number: usize) {
        self.queued[route_number].push_back(task.clone());
        self.add(commit, task, route_number, None);
    }

    /// Cancels the first waiting task of a route.
    pub(super) fn cancel(&mut self, route_number: usize) -> Option<Commit> {
        let mut task = self.queued[route_number].pop_front()?;
        task.state = State::Cancelled;
        let mut commit = Commit::default();
        self.add(&mut commit, task, route_number, Some(State::Queued));
        Some(commit)
    }

    /// Removes a route on which no task waits. A `successor` adds the route again in the same commit, with another id.
    pub(super) fn remove_route(&mut self, route_number: usize, successor: Option<Task>) -> Option<Commit> {
        if !self.queued[route_number].is_empty() {
            return None;
        }
        let id = self.ids[route_number].take()?;
        let mut commit = Commit { removed_routes: vec![id], ..Commit::default() };
        if let Some(task) = successor {
            self.enqueue(&mut commit, task, route_number);
        }
        Some(commit)
    }

    /// Assigns up to `limit` tasks of the claimed ids, which may have got new routes since the claim was planned.
    pub(super) fn claim(&mut self, claim: &Claim, limit: usize) -> Commit {
        let mut commit = Commit::default();
        for id in &claim.routes {
            let Some(route_number) = self.ids.iter().position(|known| *known == Some(*id)) else { continue };
            while commit.tasks.len() < limit.min(claim.slots) {
                let Some(mut task) = self.queued[route_number].pop_front() else { break };
                assign(&mut task, claim.worker.clone());
                commit.tasks.push(change(task, *id, Some(State::Queued), true));
            }
        }
        commit
    }
}
