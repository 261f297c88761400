//! Comparison of the scheduler with the model, after each step and at the end.

use std::collections::BTreeSet;

use super::fixture::{key, now, number, route};
use super::world::{ROUTES, WORKERS, World};

impl World {
    /// Compares the scheduler with the model.
    pub(super) fn check(&self) {
        assert_eq!(self.mismatches.get(), 0);
        let state = self.scheduler.state();
        assert_eq!(state.workers.len(), self.model.workers.len());
        let disconnected = self.model.workers.iter().filter(|(_, model)| !model.connected);
        assert_eq!(*state.disconnected, disconnected.map(|(worker, _)| key(*worker)).collect());
        for (worker, model) in &self.model.workers {
            let entry = state.workers.get(&key(*worker)).expect("the model knows this worker");
            assert_eq!(entry.slots.occupied(), model.occupied(), "occupied slots of worker {worker}");
            assert_eq!(entry.attempts(), model.attempts.len(), "attempts of worker {worker}");
            assert_eq!(entry.free(), model.free(), "free slots of worker {worker}");
            assert_eq!(
                state.available(entry),
                self.model.available(*worker),
                "available slots of worker {worker}"
            );
            let attempts = entry.slots.iter_attempts().map(|(id, fence, state)| ((id, fence), state));
            assert!(attempts.eq(model.attempts.iter().map(|(key, state)| (*key, *state))));
            let covered = (0..ROUTES).filter(|route_number| self.model.covers(*worker, *route_number));
            let covered: BTreeSet<_> =
                covered.filter_map(|route_number| self.model.ids[route_number]).collect();
            let groups =
                || entry.groups.iter().map(|id| state.matching.group(*id).expect("a group of a worker"));
            let routes: Vec<_> = groups().flat_map(|group| group.routes.iter().copied()).collect();
            assert_eq!(routes.len(), covered.len(), "a route of worker {worker} is covered twice");
            assert_eq!(routes.into_iter().collect::<BTreeSet<_>>(), covered, "routes of worker {worker}");
            let mut queued = groups().flat_map(|group| group.queued.iter());
            assert!(queued.all(|id| self.model.queued[self.model.route(id).expect("exists")] > 0));
            let waits =
                (0..ROUTES).any(|route| self.model.covers(*worker, route) && self.model.backlog(route) > 0);
            assert_eq!(state.has_backlog(entry), waits, "backlog of worker {worker}");
        }
        assert_eq!(state.matching.queues().count(), self.model.ids.iter().flatten().count());
        for route_number in 0..ROUTES {
            let id = self.model.ids[route_number];
            assert_eq!(state.matching.id(&route(route_number)), id, "id of route {route_number}");
            let Some(queue) = id.and_then(|id| state.matching.queue(id)) else {
                assert_eq!(id, None, "route {route_number} has no queue");
                assert_eq!(
                    self.model.queued[route_number], 0,
                    "route {route_number} was removed with its tasks"
                );
                continue;
            };
            assert_eq!(queue.route, route(route_number));
            assert_eq!(queue.queued, self.model.queued[route_number], "queue of route {route_number}");
            assert_eq!(queue.planned, self.model.planned[route_number], "claims for route {route_number}");
            let groups = queue.groups.iter().map(|id| state.matching.group(*id).expect("a group of a queue"));
            let open = groups.filter(|group| state.matching.is_open(group));
            let free =
                open.flat_map(|group| group.free.iter().map(|((occupied, _), key)| (number(key), *occupied)));
            let free: BTreeSet<_> = free.collect();
            assert_eq!(free, self.model.candidates(route_number).into_iter().collect());
        }
    }

    /// Ends everything that is under way: nothing may stay occupied, reserved or planned.
    pub(super) fn finish(mut self) {
        while !self.pending.is_empty() {
            self.apply_commit();
            self.check();
        }
        for (_, _, held) in std::mem::take(&mut self.creations) {
            self.settle(held, 0);
        }
        for (_, held) in std::mem::take(&mut self.claims) {
            self.settle(held, 0);
        }
        for worker in 0..WORKERS {
            let Some(session) = self.session(worker) else { continue };
            for (id, fence) in self.model.workers[&worker].attempts.keys() {
                self.scheduler.release_attempt(&key(worker), &session, *id, *fence, now());
            }
        }
        let state = self.scheduler.state();
        assert!(state.workers.values().all(|entry| entry.slots.occupied() == 0), "a slot leaked");
        assert!(state.matching.queues().all(|(_, queue)| queue.planned == 0), "a claim is still planned for");
        assert_eq!(self.mismatches.get(), 0);
    }
}
