//! The scheduler under test with everything around it that the server has: a store that assigns tasks, commits on
//! their way, reservations under way.

use std::collections::VecDeque;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use proptest::sample::Index;
use rota_core::target::Profile;
use rota_core::task::{State, Task, WorkerRef};
use rota_core::{Epoch, TaskId};
use rota_store::Commit;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fixture::{agent_name, assign, first_id, key, namespace, now, number, route, task, words};
use super::model::{self, Model, Worker};
use super::op::Op;
use super::store::Store;
use crate::keys::AgentKey;
use crate::scheduler::{Admission, ClaimPlan, Reservation, Scheduler, SessionHandle, SlotState, WorkerEntry};

pub(super) const AGENTS: usize = 2;
pub(super) const WORKERS: usize = 3;
pub(super) const ROUTES: usize = 5;

/// A commit on its way, and the reservation that is settled once it has been applied.
pub(super) struct Pending {
    commit: Commit,
    settles: Option<(usize, ModelReservation)>,
}

/// A reservation under way, with what the model has to know to account for it.
pub(super) struct ModelReservation {
    reservation: Reservation,
    worker: usize,
    epoch: u64,
    slots: usize,
    probe: bool,
    /// The route that a claim was planned for, and its generation.
    planned: Option<(usize, u64)>,
}

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) mismatches: Counter,
    pub(super) model: Model,
    store: Store,
    pub(super) creations: Vec<(TaskId, usize, ModelReservation)>,
    pub(super) claims: Vec<(rota_store::Claim, ModelReservation)>,
    pub(super) pending: VecDeque<Pending>,
    last_id: u128,
    last_epoch: u64,
    inboxes: Vec<mpsc::Receiver<Box<rota_proto::worker::v1::SessionResponse>>>,
}

impl World {
    pub(super) fn new() -> Self {
        let mismatches = Counter::default();
        let scheduler = Scheduler::new(mismatches.clone());
        scheduler.restore((0..ROUTES).map(|number| (first_id(number), route(number))).collect(), Vec::new());
        let model = Model {
            ids: (0..ROUTES).map(|number| Some(first_id(number))).collect(),
            generations: vec![0; ROUTES],
            queued: vec![0; ROUTES],
            planned: vec![0; ROUTES],
            admission: vec![Admission::Open; AGENTS],
            capable: vec![false; AGENTS],
            ..Model::default()
        };
        Self {
            scheduler,
            mismatches,
            model,
            store: Store::new(),
            creations: Vec::new(),
            claims: Vec::new(),
            pending: VecDeque::new(),
            last_id: 0,
            last_epoch: 0,
            inboxes: Vec::new(),
        }
    }

    fn task(&mut self, route_number: usize) -> Task {
        self.last_id += 1;
        task(self.last_id, route_number)
    }

    pub(super) fn session(&self, worker: usize) -> Option<WorkerRef> {
        let entry = self.model.workers.get(&worker)?;
        Some(WorkerRef { worker: key(worker).1, epoch: Epoch(entry.epoch) })
    }

    pub(super) fn run(&mut self, op: Op) {
        match op {
            Op::Register { worker, slots, resume } => self.register(worker, slots, resume),
            Op::Disconnect(worker) => {
                self.scheduler.update_any(&key(worker), |entry| entry.session = None);
                self.model.workers.entry(worker).and_modify(|entry| entry.connected = false);
            }
            Op::Remove(worker) => {
                let Some(session) = self.session(worker) else { return };
                assert!(self.scheduler.remove(&key(worker), &session));
                self.model.workers.remove(&worker);
            }
            Op::Drain { worker, only_idle } => {
                let drained = self.scheduler.drain(&key(worker), only_idle, now()).is_some();
                let Some(entry) = self.model.workers.get_mut(&worker) else { return assert!(!drained) };
                assert_eq!(drained, !only_idle || entry.occupied() == 0);
                entry.draining |= drained;
            }
            Op::Reserve(route_number) => self.reserve(route_number),
            Op::DropReservation(index) => {
                if let Some(at) = pick(&index, self.creations.len()) {
                    let (_, _, held) = self.creations.remove(at);
                    self.settle(held, 0);
                }
            }
            Op::Create { index, answer_first } => self.create(&index, answer_first),
            Op::Enqueue(route_number) => {
                let (task, mut commit) = (self.task(route_number), Commit::default());
                self.store.enqueue(&mut commit, task, route_number);
                self.pending.push_back(Pending { commit, settles: None });
            }
            Op::CancelQueued(route_number) => {
                let Some(commit) = self.store.cancel(route_number) else { return };
                self.pending.push_back(Pending { commit, settles: None });
            }
            Op::Plan => self.plan(),
            Op::Claim { index, given } => self.claim(&index, given),
            Op::DropClaim(index) => {
                if let Some(at) = pick(&index, self.claims.len()) {
                    let (_, held) = self.claims.remove(at);
                    self.settle(held, 0);
                }
            }
            Op::ApplyCommit => self.apply_commit(),
            Op::Attempt { worker, index, step } => self.attempt(worker, &index, step),
            Op::SetAdmission { agent, admission } => {
                let admission =
                    [Admission::Open, Admission::Probe, Admission::Closed][usize::from(admission)];
                let agent_key: AgentKey = (namespace(), agent_name(agent));
                self.scheduler.set_admission(&agent_key, admission);
                self.model.admission[agent] = admission;
            }
            Op::SetCapabilities { agent, capable } => {
                self.scheduler.set_capabilities(&(namespace(), agent_name(agent)), &words(capable));
                self.model.capable[agent] = capable;
            }
            Op::RemoveRoute { route, again } => {
                let successor = again.then(|| self.task(route));
                let Some(commit) = self.store.remove_route(route, successor) else { return };
                self.pending.push_back(Pending { commit, settles: None });
            }
        }
    }

    fn register(&mut self, worker: usize, slots: usize, resume: bool) {
        self.last_epoch += 1;
        let profile = Profile {
            namespace: namespace(),
            worker: key(worker).1,
            agent: agent_name(model::agent(worker)),
            capabilities: Arc::new(words(
                model::is_capable(worker) || self.model.capable[model::agent(worker)],
            )),
            task: None,
        };
        let mut entry = WorkerEntry::new(profile, Epoch(self.last_epoch), self.last_epoch.to_string(), now());
        let (messages, inbox) = mpsc::channel(1);
        self.inboxes.push(inbox);
        entry.session = Some(SessionHandle { messages, closed: CancellationToken::new() });
        entry.slot_count = slots;
        entry.own_capabilities = words(model::is_capable(worker));
        let mut fresh = Worker { epoch: self.last_epoch, slots, connected: true, ..Worker::default() };
        if let Some(previous) = self.model.workers.remove(&worker)
            && resume
        {
            fresh.attempts = previous.attempts;
            for ((id, fence), state) in &fresh.attempts {
                entry.resume(*id, *fence, *state);
            }
        }
        self.model.workers.insert(worker, fresh);
        assert!(self.scheduler.register(entry).is_ok());
    }

    fn reserve(&mut self, route_number: usize) {
        let task = self.task(route_number);
        let candidates = self.model.candidates(route_number);
        let has_backlog = |worker: usize| {
            (0..ROUTES).any(|route| self.model.covers(worker, route) && self.model.backlog(route) > 0)
        };
        let Some(reservation) = self.scheduler.reserve(&route(route_number), task.id) else {
            let taken = self.model.queued[route_number] > 0 || candidates.keys().any(|it| has_backlog(*it));
            let exists = self.model.ids[route_number].is_some();
            return assert!(!exists || candidates.is_empty() || taken, "a free slot was not offered");
        };
        let worker = number(reservation.worker());
        assert_eq!(self.model.queued[route_number], 0, "a new task overtook those that wait");
        assert!(!has_backlog(worker), "the slot is needed for other tasks");
        assert_eq!(candidates.get(&worker), candidates.values().min(), "not the least loaded worker");
        let held = self.hold(reservation, worker, 1, None);
        self.creations.push((task.id, route_number, held));
    }

    fn hold(
        &mut self,
        reservation: Reservation,
        worker: usize,
        slots: usize,
        planned: Option<(usize, u64)>,
    ) -> ModelReservation {
        let probe = self.model.take_probe(worker);
        let entry = self.model.workers.get_mut(&worker).expect("only known workers have slots");
        entry.reserved += slots;
        assert!(entry.occupied() <= entry.slots, "more slots were given out than there are");
        assert_eq!(reservation.session().epoch, Epoch(entry.epoch));
        ModelReservation { reservation, worker, epoch: entry.epoch, slots, probe, planned }
    }

    /// Ends a reservation of which `assigned` slots have got tasks.
    pub(super) fn settle(&mut self, held: ModelReservation, assigned: usize) {
        let ModelReservation { reservation, worker, epoch, slots, probe, planned } = held;
        match assigned {
            0 => drop(reservation),
            _ => reservation.commit(assigned),
        }
        // A claim was planned for the tasks that a route had then, not for those of its successor.
        if let Some((route_number, generation)) = planned
            && self.model.ids[route_number].is_some()
            && self.model.generations[route_number] == generation
        {
            self.model.planned[route_number] -= slots as u64;
        }
        if assigned == 0 && probe {
            self.model.return_probe(worker);
        }
        if let Some(entry) = self.model.workers.get_mut(&worker).filter(|entry| entry.epoch == epoch) {
            entry.reserved -= slots - assigned;
        }
    }

    fn create(&mut self, index: &Index, answer_first: bool) {
        let Some(at) = pick(index, self.creations.len()) else { return };
        let (task_id, route_number, held) = self.creations.remove(at);
        let mut task = Task { id: task_id, ..self.task(route_number) };
        if self.session(held.worker).is_some_and(|session| session.epoch == Epoch(held.epoch)) {
            assign(&mut task, held.reservation.session().clone());
            let mut commit = Commit::default();
            self.store.add(&mut commit, task, route_number, None);
            if answer_first {
                self.settle(held, 1);
                self.pending.push_back(Pending { commit, settles: None });
            } else {
                self.pending.push_back(Pending { commit, settles: Some((1, held)) });
            }
        } else {
            // The store knows a newer session: the task waits like any other.
            let mut commit = Commit::default();
            self.store.enqueue(&mut commit, task, route_number);
            self.pending.push_back(Pending { commit, settles: Some((0, held)) });
        }
    }

    fn plan(&mut self) {
        for ClaimPlan { claim, reservation } in self.scheduler.plan() {
            let worker = number(reservation.worker());
            let (id, _) = reservation.reserved.queue.expect("a claim is planned for a queue");
            let route_number = self.model.route(id).expect("the route of a claim exists");
            assert!(claim.slots > 0 && claim.slots <= self.model.available(worker));
            assert!(self.model.backlog(route_number) > 0, "a claim was planned for nothing");
            for id in &claim.routes {
                let covered = self.model.route(*id).is_some_and(|route| self.model.covers(worker, route));
                assert!(covered, "a claim was planned for a route that its worker does not cover");
            }
            self.model.planned[route_number] += claim.slots as u64;
            let planned = Some((route_number, self.model.generations[route_number]));
            let held = self.hold(reservation, worker, claim.slots, planned);
            self.claims.push((claim, held));
        }
        for route_number in 0..ROUTES {
            let idle =
                self.model.backlog(route_number) > 0 && !self.model.candidates(route_number).is_empty();
            assert!(!idle, "a task waits on route {route_number} although a slot is free");
        }
    }

    fn claim(&mut self, index: &Index, given: usize) {
        let Some(at) = pick(index, self.claims.len()) else { return };
        let (claim, held) = self.claims.remove(at);
        let live = self.session(held.worker).is_some_and(|session| session == claim.worker);
        let commit = self.store.claim(&claim, if live { given } else { 0 });
        let assigned = commit.tasks.len();
        self.pending.push_back(Pending { commit, settles: Some((assigned, held)) });
    }

    pub(super) fn apply_commit(&mut self) {
        let Some(Pending { commit, settles }) = self.pending.pop_front() else { return };
        let recipients = self.scheduler.apply(&commit, now());
        for (id, added) in &commit.routes {
            let route_number = (0..ROUTES).find(|number| route(*number) == *added).expect("a known route");
            self.model.add_route(route_number, *id);
        }
        for (change, recipient) in commit.tasks.iter().zip(recipients) {
            let route_number = self.model.route(change.route).expect("a task's route exists");
            let (before, after) = (change.before, change.task.state);
            self.model.queued[route_number] += u64::from(after == State::Queued);
            self.model.queued[route_number] -= u64::from(before == Some(State::Queued));
            let assigned = change.task.assignment.as_ref().filter(|_| change.dispatch.is_some());
            let worker = assigned.and_then(|assignment| {
                let at = number(&(namespace(), assignment.worker.clone()));
                let entry = self.model.workers.get_mut(&at)?;
                (Epoch(entry.epoch) == assignment.epoch).then_some(entry)
            });
            assert_eq!(recipient.is_some(), worker.as_ref().is_some_and(|worker| worker.connected));
            if let Some(worker) = worker {
                worker.reserved -= 1;
                worker.attempts.insert((change.task.id, change.task.fence), SlotState::Running);
            }
        }
        for id in &commit.removed_routes {
            self.model.remove_route(*id);
        }
        if let Some((assigned, held)) = settles {
            self.settle(held, assigned);
        }
    }

    fn attempt(&mut self, worker: usize, index: &Index, step: u8) {
        let Some(session) = self.session(worker) else { return };
        let Some(entry) = self.model.workers.get_mut(&worker) else { return };
        let Some(at) = pick(index, entry.attempts.len()) else { return };
        let (id, fence) = *entry.attempts.keys().nth(at).expect("picked among them");
        let state = entry.attempts.get_mut(&(id, fence)).expect("picked among them");
        let was_running = *state == SlotState::Running;
        match step {
            0 => {
                self.scheduler.finish_attempt(&key(worker), &session, id, fence);
                if was_running {
                    *state = SlotState::Finishing;
                }
            }
            1 => {
                let abandoned = self.scheduler.abandon_attempt(&key(worker), &session, id, fence);
                assert_eq!(abandoned, was_running);
                if was_running {
                    *state = SlotState::Abandoned;
                }
            }
            _ => {
                self.scheduler.release_attempt(&key(worker), &session, id, fence, now());
                entry.attempts.remove(&(id, fence));
            }
        }
    }
}

fn pick(index: &Index, len: usize) -> Option<usize> {
    (len > 0).then(|| index.index(len))
}
