//! The fleet: seats, routes, what waits on each, and the plan of who claims where. Every method is
//! short and takes one lock; nothing here waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rota_core::target::Route;
use rota_core::task::{State, WorkerRef};
use rota_core::{AgentName, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_store::{Claim, TaskChange};
use tokio::sync::Notify;

use super::{Gate, Seat, SeatKey};

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) route: Route,
    /// Ready tasks, as far as commits have told.
    pub(super) queued: u64,
    /// Of these, how many claims under way may take.
    planned: u64,
    /// Seats with free slots, least loaded first.
    free: BTreeSet<(usize, SeatKey)>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) seats: HashMap<SeatKey, Seat>,
    pub(super) lanes: HashMap<RouteId, Lane>,
    pub(super) ids: HashMap<Route, RouteId>,
    /// Of agents that may not be given everything.
    pub(super) gates: HashMap<(Namespace, AgentName), Gate>,
    pub(super) room: Arc<Notify>,
}

/// All workers, and all that waits for them.
#[derive(Debug)]
pub(crate) struct Fleet {
    inner: Mutex<Inner>,
    /// A slot has come free, by whatever way: something that waits may fit now.
    room: Arc<Notify>,
}

/// A slot kept for a task that is being made.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) seat: SeatKey,
    pub(crate) worker: WorkerRef,
    /// The agent that is given this one task to see how it fares.
    tries: Option<AgentName>,
}

/// A claim to be made. Its slots are kept until [`Fleet::claimed`].
#[derive(Debug)]
pub(crate) struct PlannedClaim {
    pub(crate) seat: SeatKey,
    pub(crate) claim: Claim,
    route: RouteId,
    planned: u64,
    tries: Option<AgentName>,
}

impl Inner {
    /// Changes a seat, and keeps the lanes' lists of free seats true.
    pub(super) fn with_seat<O>(&mut self, key: &SeatKey, change: impl FnOnce(&mut Seat) -> O) -> Option<O> {
        let seat = self.seats.get_mut(key)?;
        let before = (seat.free() > 0, seat.used());
        let out = change(seat);
        let after = (seat.free() > 0, seat.used());
        if after.1 < before.1 {
            self.room.notify_one();
        }
        if before != after {
            for route in &seat.covers {
                let Some(lane) = self.lanes.get_mut(route) else { continue };
                if before.0 {
                    lane.free.remove(&(before.1, key.clone()));
                }
                if after.0 {
                    lane.free.insert((after.1, key.clone()));
                }
            }
        }
        Some(out)
    }

    fn add_lane(&mut self, id: RouteId, route: Route) {
        if self.lanes.get(&id).is_some_and(|lane| lane.route == route) {
            return;
        }
        // The number of a route that is gone may be given again.
        self.remove_lane(id);
        let mut free = BTreeSet::new();
        for (key, seat) in &mut self.seats {
            if seat.profile.covers(&route) {
                seat.covers.push(id);
                if seat.free() > 0 {
                    free.insert((seat.used(), key.clone()));
                }
            }
        }
        self.ids.insert(route.clone(), id);
        self.lanes.insert(id, Lane { route, queued: 0, planned: 0, free });
    }

    fn remove_lane(&mut self, id: RouteId) {
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.ids.remove(&lane.route);
        for seat in self.seats.values_mut() {
            seat.covers.retain(|route| *route != id);
        }
    }

    fn add_seat(&mut self, mut seat: Seat) {
        let key = seat.key();
        let agent = (key.0.clone(), seat.profile.agent.clone());
        seat.gate = self.gates.get(&agent).copied().unwrap_or_default();
        let covered = self.lanes.iter().filter(|(_, lane)| seat.profile.covers(&lane.route));
        seat.covers = covered.map(|(id, _)| *id).collect();
        seat.covers.sort_unstable();
        if seat.free() > 0 {
            self.room.notify_one();
            for route in &seat.covers {
                if let Some(lane) = self.lanes.get_mut(route) {
                    lane.free.insert((seat.used(), key.clone()));
                }
            }
        }
        self.seats.insert(key, seat);
    }

    fn remove_seat(&mut self, key: &SeatKey) -> Option<Seat> {
        let seat = self.seats.remove(key)?;
        for route in &seat.covers {
            if let Some(lane) = self.lanes.get_mut(route) {
                lane.free.remove(&(seat.used(), key.clone()));
            }
        }
        Some(seat)
    }

    /// Whether something waits on any route of a seat that no claim under way will take.
    fn has_backlog(&self, seat: &Seat) -> bool {
        seat.covers.iter().any(|route| self.lanes.get(route).is_some_and(|lane| lane.queued > lane.planned))
    }

    /// Lets the least loaded seat of a lane claim from all of its routes, if something waits there.
    fn plan_one(&mut self, id: RouteId) -> Option<PlannedClaim> {
        let lane = self.lanes.get(&id)?;
        let waiting = lane.queued.saturating_sub(lane.planned);
        if waiting == 0 {
            return None;
        }
        let key = lane.free.first()?.1.clone();
        let seat = self.seats.get(&key)?;
        let has_work = |route: &RouteId| self.lanes.get(route).is_some_and(|lane| lane.queued > 0);
        let routes: Vec<_> = seat.covers.iter().copied().filter(has_work).collect();
        // A route that others wait on is shared: one slot at a time per seat spreads work over the fleet,
        // unless there is more than enough for every free seat.
        let fair = usize::try_from(waiting / lane.free.len() as u64).unwrap_or(usize::MAX).max(1);
        let slots = seat.free().min(fair);
        let claim = Claim { namespace: seat.profile.namespace.clone(), worker: seat.worker(), routes, slots };
        self.with_seat(&key, |seat| seat.claiming += slots);
        let tries = self.takes(&key);
        let planned = slots as u64;
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.planned += planned;
        }
        Some(PlannedClaim { seat: key, claim, route: id, planned, tries })
    }
}

impl Default for Fleet {
    fn default() -> Self {
        let room = Arc::<Notify>::default();
        Self { inner: Mutex::new(Inner { room: Arc::clone(&room), ..Inner::default() }), room }
    }
}

impl Fleet {
    /// Waits until slots have come free since the last time. For one listener: whoever makes the claims.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// What the store knew at the start.
    pub(crate) fn load(&self, routes: Vec<(RouteId, Route)>, queued: Vec<(RouteId, u64)>) {
        let mut inner = self.inner();
        for (id, route) in routes {
            inner.add_lane(id, route);
        }
        for (id, count) in queued {
            if let Some(lane) = inner.lanes.get_mut(&id) {
                lane.queued = count;
            }
        }
    }

    /// Routes that a commit made known.
    pub(crate) fn add_routes(&self, routes: &[(RouteId, Route)]) {
        let mut inner = self.inner();
        for (id, route) in routes {
            inner.add_lane(*id, route.clone());
        }
    }

    /// Routes that a commit removed.
    pub(crate) fn remove_routes(&self, routes: &[RouteId]) {
        let mut inner = self.inner();
        for id in routes {
            let Some(lane) = inner.lanes.remove(id) else { continue };
            // The same route may have come anew, under another number.
            if inner.ids.get(&lane.route) == Some(id) {
                inner.ids.remove(&lane.route);
            }
            for seat in inner.seats.values_mut() {
                seat.covers.retain(|covered| covered != id);
            }
        }
    }

    /// A worker's session is up, in the place of whatever was known under its name, which comes back. An error
    /// if a newer session was faster.
    pub(crate) fn seat(&self, mut seat: Seat) -> Result<Option<Seat>, ()> {
        let mut inner = self.inner();
        let key = seat.key();
        if inner.seats.get(&key).is_some_and(|known| known.epoch > seat.epoch) {
            return Err(());
        }
        let old = inner.remove_seat(&key);
        // A drain that was asked for while the worker was away still holds for the same process.
        seat.draining |= old.as_ref().is_some_and(|old| old.draining && old.instance == seat.instance);
        inner.add_seat(seat);
        Ok(old)
    }

    /// An agent can do these things now; so can its workers.
    pub(crate) fn learn(&self, namespace: &Namespace, agent: &AgentName, capabilities: &BTreeSet<String>) {
        let mut inner = self.inner();
        let ours =
            inner.seats.iter().filter(|(key, seat)| key.0 == *namespace && seat.profile.agent == *agent);
        let keys: Vec<_> = ours.map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(mut seat) = inner.remove_seat(&key) else { continue };
            seat.profile.capabilities = seat.own.union(capabilities).cloned().collect();
            inner.add_seat(seat);
        }
    }

    /// Changes a worker's seat if it is of this session.
    pub(crate) fn with<O>(
        &self,
        key: &SeatKey,
        worker: &WorkerRef,
        change: impl FnOnce(&mut Seat) -> O,
    ) -> Option<O> {
        let mut inner = self.inner();
        inner.seats.get(key).filter(|seat| seat.epoch == worker.epoch)?;
        inner.with_seat(key, change)
    }

    /// Changes whatever seat has this name.
    pub(crate) fn with_any<O>(&self, key: &SeatKey, change: impl FnOnce(&mut Seat) -> O) -> Option<O> {
        self.inner().with_seat(key, change)
    }

    /// Ends a session's stream, if it is still the seat's: nothing more is planned for it.
    pub(crate) fn hang_up(&self, key: &SeatKey, worker: &WorkerRef) {
        if let Some(outgoing) = self.with(key, worker, |seat| seat.outgoing.take()).flatten() {
            outgoing.hang_up.cancel();
        }
    }

    /// Forgets a worker, if it is still of this session.
    pub(crate) fn leave(&self, key: &SeatKey, worker: &WorkerRef) -> bool {
        let mut inner = self.inner();
        let same = inner.seats.get(key).is_some_and(|seat| seat.epoch == worker.epoch);
        same && inner.remove_seat(key).is_some()
    }

    /// Keeps a fitting free slot for a task that is about to be made, unless others wait for it.
    pub(crate) fn reserve(&self, route: &Route, id: TaskId) -> Option<Offer> {
        let mut inner = self.inner();
        let lane = inner.lanes.get(inner.ids.get(route)?)?;
        if lane.queued > 0 {
            return None;
        }
        let key = lane.free.first()?.1.clone();
        let seat = inner.seats.get(&key)?;
        if inner.has_backlog(seat) {
            return None;
        }
        let worker = seat.worker();
        inner.with_seat(&key, |seat| seat.reserved.insert(id));
        let tries = inner.takes(&key);
        Some(Offer { seat: key, worker, tries })
    }

    /// Gives back a slot that was kept for a creation.
    pub(crate) fn release(&self, offer: &Offer, id: TaskId) {
        self.with(&offer.seat, &offer.worker, |seat| seat.reserved.remove(&id));
        self.inner().not_tried(&offer.seat.0, offer.tries.as_ref());
    }

    /// Takes in what a commit changed about who waits where.
    pub(crate) fn note(&self, changes: &[TaskChange]) {
        let mut inner = self.inner();
        for change in changes {
            let before = change.before == Some(State::Queued);
            let after = change.task.state == State::Queued;
            if before != after
                && let Some(lane) = inner.lanes.get_mut(&change.route)
            {
                lane.queued = if after { lane.queued + 1 } else { lane.queued.saturating_sub(1) };
            }
            if change.task.state.is_final() && change.task.target.is_own() {
                inner.remove_lane(change.route);
            }
        }
    }

    /// All claims to be made now.
    pub(crate) fn plan(&self) -> Vec<PlannedClaim> {
        let mut inner = self.inner();
        let waiting: Vec<_> =
            inner.lanes.iter().filter(|(_, lane)| lane.queued > lane.planned).map(|(id, _)| *id).collect();
        let mut plans = Vec::new();
        for route in waiting {
            while let Some(plan) = inner.plan_one(route) {
                plans.push(plan);
            }
        }
        plans
    }

    /// A claim has been answered: `given` tasks are on their way through the commits, which take their slots over.
    pub(crate) fn claimed(&self, plan: &PlannedClaim, given: usize) {
        let mut inner = self.inner();
        if let Some(lane) = inner.lanes.get_mut(&plan.route) {
            lane.planned = lane.planned.saturating_sub(plan.planned);
        }
        if given == 0 {
            inner.not_tried(&plan.seat.0, plan.tries.as_ref());
        }
        let same = inner.seats.get(&plan.seat).is_some_and(|seat| seat.epoch == plan.claim.worker.epoch);
        if same {
            let unused = plan.claim.slots.saturating_sub(given);
            inner.with_seat(&plan.seat, |seat| seat.claiming = seat.claiming.saturating_sub(unused));
        }
    }

    /// A worker no longer has an attempt.
    pub(crate) fn freed(&self, key: &SeatKey, worker: &WorkerRef, id: TaskId, fence: Fence, now: Timestamp) {
        self.with(key, worker, |seat| {
            seat.about.count(now, seat.attempts.len());
            if seat.attempts.remove(&(id, fence)).is_some() && seat.attempts.is_empty() {
                seat.about.idle_since = Some(now);
            }
        });
    }

    /// The agent of a worker.
    pub(crate) fn agent_of(&self, namespace: &Namespace, worker: &WorkerName) -> Option<AgentName> {
        let inner = self.inner();
        inner.seats.get(&(namespace.clone(), worker.clone())).map(|seat| seat.profile.agent.clone())
    }

    /// A seat, to look at.
    pub(crate) fn look(&self, key: &SeatKey) -> Option<MappedMutexGuard<'_, Seat>> {
        MutexGuard::try_map(self.inner(), |inner| inner.seats.get_mut(key)).ok()
    }
}
