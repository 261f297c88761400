//! The scheduler under test with everything around it that the server has: a store that assigns tasks, commits on
//! their way, reservations under way.

use std::collections::{BTreeSet, VecDeque};

use prometheus_client::metrics::counter::Counter;
use proptest::sample::Index;
use rota_core::target::Profile;
use rota_core::task::{State, Task, WorkerRef};
use rota_core::{Epoch, TaskId};
use rota_store::Commit;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fixture::{agent_name, assign, change, commit, id, key, namespace, now, number, route, task};
use super::model::{self, Model, Worker};
use crate::agents::AgentKey;
use crate::scheduler::{Admission, ClaimPlan, Reservation, Scheduler, SessionHandle, SlotState, WorkerEntry};

pub(super) const AGENTS: usize = 2;
pub(super) const WORKERS: usize = 3;
pub(super) const ROUTES: usize = 4;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A worker connects, with or without the attempts that it had.
    Register {
        worker: usize,
        slots: usize,
        resume: bool,
    },
    Disconnect(usize),
    Remove(usize),
    Drain {
        worker: usize,
        only_idle: bool,
    },
    Reserve(usize),
    DropReservation(Index),
    /// The store commits a creation with its reserved slot. The answer may overtake the commit.
    Create {
        index: Index,
        answer_first: bool,
    },
    Enqueue(usize),
    CancelQueued(usize),
    Plan,
    /// The store answers a claim with up to so many tasks.
    Claim {
        index: Index,
        given: usize,
    },
    DropClaim(Index),
    ApplyCommit,
    /// A worker reports on an attempt: finishing, abandoned, ended.
    Attempt {
        worker: usize,
        index: Index,
        step: u8,
    },
    SetAdmission {
        agent: usize,
        admission: u8,
    },
}

/// A commit on its way, and the reservation that is settled once it has been applied.
pub(super) struct Pending {
    commit: Commit,
    settles: Option<(usize, Held)>,
}

/// A reservation under way, with what the model has to know to account for it.
pub(super) struct Held {
    reservation: Reservation,
    worker: usize,
    epoch: u64,
    slots: usize,
    probe: bool,
    /// The route that a claim was planned for.
    planned: Option<usize>,
}

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) mismatches: Counter,
    pub(super) model: Model,
    /// Queued tasks in the store, which is ahead of the commits applied.
    stored: Vec<VecDeque<Task>>,
    pub(super) creations: Vec<(TaskId, usize, Held)>,
    pub(super) claims: Vec<(rota_store::Claim, Held)>,
    pub(super) pending: VecDeque<Pending>,
    last_id: u128,
    last_epoch: u64,
    inboxes: Vec<mpsc::Receiver<rota_proto::worker::v1::SessionResponse>>,
}

impl World {
    pub(super) fn new() -> Self {
        let mismatches = Counter::default();
        let scheduler = Scheduler::new(mismatches.clone());
        scheduler.restore((0..ROUTES).map(|number| (id(number), route(number))).collect(), Vec::new());
        let model = Model {
            queued: vec![0; ROUTES],
            planned: vec![0; ROUTES],
            admission: vec![Admission::Open; AGENTS],
            ..Model::default()
        };
        Self {
            scheduler,
            mismatches,
            model,
            stored: vec![VecDeque::new(); ROUTES],
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
                let task = self.task(route_number);
                self.stored[route_number].push_back(task.clone());
                let commit = commit(vec![change(task, route_number, None, false)]);
                self.pending.push_back(Pending { commit, settles: None });
            }
            Op::CancelQueued(route_number) => {
                let Some(mut task) = self.stored[route_number].pop_front() else { return };
                task.state = State::Cancelled;
                let commit = commit(vec![change(task, route_number, Some(State::Queued), false)]);
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
        }
    }

    fn register(&mut self, worker: usize, slots: usize, resume: bool) {
        self.last_epoch += 1;
        let profile = Profile {
            namespace: namespace(),
            worker: key(worker).1,
            agent: agent_name(model::agent(worker)),
            capabilities: BTreeSet::new(),
            task: None,
        };
        let mut entry = WorkerEntry::new(profile, Epoch(self.last_epoch), self.last_epoch.to_string(), now());
        let (messages, inbox) = mpsc::channel(1);
        self.inboxes.push(inbox);
        entry.session = Some(SessionHandle { messages, closed: CancellationToken::new() });
        entry.slot_count = slots;
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
            (0..ROUTES).any(|route| model::covers(worker, route) && self.model.backlog(route) > 0)
        };
        let Some(reservation) = self.scheduler.reserve(&route(route_number), task.id) else {
            let taken = self.model.queued[route_number] > 0 || candidates.keys().any(|it| has_backlog(*it));
            return assert!(candidates.is_empty() || taken, "a free slot was not offered");
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
        planned: Option<usize>,
    ) -> Held {
        let probe = self.model.take_probe(worker);
        let entry = self.model.workers.get_mut(&worker).expect("only known workers have slots");
        entry.reserved += slots;
        assert!(entry.occupied() <= entry.slots, "more slots were given out than there are");
        assert_eq!(reservation.session().epoch, Epoch(entry.epoch));
        Held { reservation, worker, epoch: entry.epoch, slots, probe, planned }
    }

    /// Ends a reservation of which `assigned` slots have got tasks.
    pub(super) fn settle(&mut self, held: Held, assigned: usize) {
        let Held { reservation, worker, epoch, slots, probe, planned } = held;
        match assigned {
            0 => drop(reservation),
            _ => reservation.commit(assigned),
        }
        if let Some(route_number) = planned {
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
            let commit = commit(vec![change(task, route_number, None, true)]);
            if answer_first {
                self.settle(held, 1);
                self.pending.push_back(Pending { commit, settles: None });
            } else {
                self.pending.push_back(Pending { commit, settles: Some((1, held)) });
            }
        } else {
            // The store knows a newer session: the task waits like any other.
            self.stored[route_number].push_back(task.clone());
            let commit = commit(vec![change(task, route_number, None, false)]);
            self.pending.push_back(Pending { commit, settles: Some((0, held)) });
        }
    }

    fn plan(&mut self) {
        for ClaimPlan { claim, reservation } in self.scheduler.plan() {
            let worker = number(reservation.worker());
            let route_number = reservation.held.queue.expect("a claim is planned for a queue").0.0 as usize;
            assert!(claim.slots > 0 && claim.slots <= self.model.available(worker));
            assert!(self.model.backlog(route_number) > 0, "a claim was planned for nothing");
            self.model.planned[route_number] += claim.slots as u64;
            let held = self.hold(reservation, worker, claim.slots, Some(route_number));
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
        let mut changes = Vec::new();
        for route in claim.routes.iter().map(|route| route.0 as usize) {
            while live && changes.len() < given.min(claim.slots) {
                let Some(mut task) = self.stored[route].pop_front() else { break };
                assign(&mut task, claim.worker.clone());
                changes.push(change(task, route, Some(State::Queued), true));
            }
        }
        let assigned = changes.len();
        self.pending.push_back(Pending { commit: commit(changes), settles: Some((assigned, held)) });
    }

    pub(super) fn apply_commit(&mut self) {
        let Some(Pending { commit, settles }) = self.pending.pop_front() else { return };
        let recipients = self.scheduler.apply(&commit, now());
        for (change, recipient) in commit.tasks.iter().zip(recipients) {
            let route_number = change.route.0 as usize;
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
