//! Work of the scheduler, counted in queues and groups looked at: the same with few and with many workers.

use std::future::pending;
use std::sync::Arc;

use futures::FutureExt;
use prometheus_client::metrics::counter::Counter;
use rota_core::target::{Profile, Route, Target};
use rota_core::task::{Command, Loss, State, Storing, Task};
use rota_core::{Epoch, RouteId, TaskId};
use rota_store::Commit;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fixture::{agent_name, assign, change, key, namespace, now};
use crate::scheduler::{Admission, Scheduler, SessionHandle, WorkerEntry, until_answered};

/// The agent whose tasks and workers are looked at. The other agents come after it.
const AGENT: usize = 0;

struct Setup {
    scheduler: Scheduler,
    routes: Vec<Route>,
    last_task: u128,
    inboxes: Vec<mpsc::Receiver<Box<rota_proto::worker::v1::SessionResponse>>>,
}

impl Setup {
    /// Returns `size` free workers of one agent, and `size` each of: agents with a busy worker and a waiting task; tasks
    /// that wait for workers of their own; tasks that wait for capabilities that no worker has; empty routes.
    fn new(size: usize) -> Self {
        let scheduler = Scheduler::new(Counter::default());
        let mut setup = Self { scheduler, routes: Vec::new(), last_task: 0, inboxes: Vec::new() };
        setup.add_route(Target::Agent(agent_name(AGENT)));
        for number in 0..size {
            setup.connect(AGENT, number, 1);
            let own = Target::Task { id: setup.next_id(), agent: agent_name(AGENT) };
            setup.enqueue_on(own);
            setup.enqueue_on(Target::Capabilities([format!("missing-{number}")].into()));
            setup.add_route(Target::Worker(key(2 * size + number).1));
            setup.enqueue_on(Target::Agent(agent_name(1 + number)));
            setup.connect(1 + number, size + number, 0);
        }
        setup
    }

    fn next_id(&mut self) -> TaskId {
        self.last_task += 1;
        TaskId(uuid::Uuid::from_u128(self.last_task))
    }

    fn add_route(&mut self, target: Target) -> RouteId {
        let id = RouteId(u32::try_from(self.routes.len()).unwrap());
        let route = Route { namespace: namespace(), target };
        self.routes.push(route.clone());
        self.scheduler.apply(&Commit { routes: vec![(id, route)], ..Commit::default() }, now());
        id
    }

    /// Returns a new task that waits on a route.
    fn enqueue(&mut self, route: RouteId) -> Task {
        let target = self.routes[route.0 as usize].target.clone();
        let id = self.next_id();
        let new = Task { agent_known: true, ..Task::new(id, namespace(), target) };
        let task = rota_core::task::create(new, now()).0;
        self.apply(task.clone(), route, None, false);
        task
    }

    fn enqueue_on(&mut self, target: Target) {
        let route = self.add_route(target);
        self.enqueue(route);
    }

    fn apply(&self, task: Task, route: RouteId, before: Option<State>, assigned: bool) {
        let commit = Commit { tasks: vec![change(task, route, before, assigned)], ..Commit::default() };
        self.scheduler.apply(&commit, now());
    }

    fn connect(&mut self, agent: usize, worker: usize, slots: usize) {
        let profile = Profile {
            namespace: namespace(),
            worker: key(worker).1,
            agent: agent_name(agent),
            capabilities: Arc::default(),
            task: None,
        };
        let mut entry = WorkerEntry::new(profile, Epoch(1), "process".to_owned(), now());
        let (messages, inbox) = mpsc::channel(1);
        self.inboxes.push(inbox);
        entry.session = Some(SessionHandle { messages, closed: CancellationToken::new() });
        entry.slot_count = slots;
        assert!(self.scheduler.register(entry).is_ok());
    }

    /// Returns how many queues and groups were looked at.
    fn count(&mut self, work: impl FnOnce(&mut Self)) -> u64 {
        let before = self.scheduler.state().matching.visited();
        work(self);
        self.scheduler.state().matching.visited() - before
    }
}

/// Returns the work of each thing that happens while the control plane runs.
fn work(size: usize) -> Vec<(&'static str, u64)> {
    let mut setup = Setup::new(size);
    let route = RouteId(0);
    assert!(setup.scheduler.plan().is_empty(), "all tasks wait for workers that are busy or missing");
    let mut counts = Vec::new();
    let mut count = |what, counted| counts.push((what, counted));

    count("creation with a free slot", {
        let id = setup.next_id();
        setup.count(|setup| {
            let reservation = setup.scheduler.reserve(&setup.routes[0], id).expect("a slot is free");
            let new = Task::new(id, namespace(), Target::Agent(agent_name(AGENT)));
            let mut task = rota_core::task::create(Task { agent_known: true, ..new }, now()).0;
            assign(&mut task, reservation.session().clone());
            reservation.commit(1);
            setup.apply(task, route, None, true);
            assert!(setup.scheduler.plan().is_empty());
        })
    });
    count("task that waits, its claim, its end", {
        setup.count(|setup| {
            let mut task = setup.enqueue(route);
            let mut plans = setup.scheduler.plan();
            let plan = plans.pop().expect("a claim");
            assert!(plans.is_empty());
            assign(&mut task, plan.claim.worker.clone());
            let (worker, session) = (plan.reservation.worker().clone(), plan.claim.worker.clone());
            setup.apply(task.clone(), route, Some(State::Queued), true);
            plan.reservation.commit(1);
            setup.scheduler.release_attempt(&worker, &session, task.id, task.fence, now());
            assert!(setup.scheduler.plan().is_empty());
        })
    });
    count("task with a worker of its own", {
        let own = Target::Task { id: setup.next_id(), agent: agent_name(AGENT) };
        setup.count(|setup| setup.enqueue_on(own))
    });
    count("route of one worker", setup.count(|setup| setup.enqueue_on(Target::Worker(key(0).1))));
    drop(setup.scheduler.plan());
    count("worker that joins", setup.count(|setup| setup.connect(AGENT, 3 * size, 1)));
    count("first worker of an agent", setup.count(|setup| setup.connect(size + 1, 3 * size + 1, 1)));
    let new_words = Target::Capabilities(["new".to_owned()].into());
    count("route by capabilities", setup.count(|setup| setup.enqueue_on(new_words)));
    count("capabilities of an agent", {
        let agent = (namespace(), agent_name(1));
        setup.count(|setup| setup.scheduler.set_capabilities(&agent, &["new".to_owned()].into()))
    });
    count("heartbeat", {
        let at = |entry: &mut WorkerEntry| entry.stats.last_seen_at = now();
        setup.count(|setup| assert!(setup.scheduler.update_any(&key(0), at).is_some()))
    });
    let agent = (namespace(), agent_name(AGENT));
    count("open breaker", setup.count(|setup| setup.scheduler.set_admission(&agent, Admission::Closed)));
    count("closed breaker", setup.count(|setup| setup.scheduler.set_admission(&agent, Admission::Open)));
    count("worker that leaves", {
        setup.count(|setup| {
            let session = setup.scheduler.inspect(&key(1), WorkerEntry::worker_ref).expect("a worker");
            assert!(setup.scheduler.remove(&key(1), &session));
        })
    });
    counts
}

#[test]
fn lost_attempt_is_not_awaited() {
    for lost in [false, true] {
        let mut setup = Setup::new(0);
        setup.connect(AGENT, 0, 1);
        let (route, mut task) = (RouteId(0), setup.enqueue(RouteId(0)));
        let plan = setup.scheduler.plan().pop().expect("a claim");
        let session = plan.claim.worker.clone();
        assign(&mut task, session.clone());
        setup.apply(task.clone(), route, Some(State::Queued), true);
        plan.reservation.commit(1);
        let storing = Storing { since: now(), outlives_worker: !lost };
        task.assignment.as_mut().unwrap().storing = Some(storing);
        setup.apply(task.clone(), route, Some(task.state), false);
        setup.scheduler.update(&key(0), &session, |entry| entry.session = None);
        if lost {
            let before = task.state;
            let message = String::new();
            let lose =
                Command::LoseWorker { session: session.clone(), loss: Loss::Died, seen: None, message };
            task.apply(lose, now()).unwrap();
            setup.apply(task, route, Some(before), false);
        }
        assert!(setup.scheduler.remove(&key(0), &session));
        assert_eq!(setup.scheduler.view().awaited.is_empty(), lost);
    }
}

#[test]
fn worker_with_files_to_store_is_free_and_not_idle() {
    let mut setup = Setup::new(0);
    setup.connect(AGENT, 0, 1);
    let (route, mut task) = (RouteId(0), setup.enqueue(RouteId(0)));
    let counts = |setup: &Setup| {
        let worker = setup.scheduler.view().workers[0].clone();
        (worker.tasks.len(), worker.storing, worker.free)
    };
    assert_eq!(counts(&setup), (0, 0, 1));
    let plan = setup.scheduler.plan().pop().expect("a claim");
    let session = plan.claim.worker.clone();
    assign(&mut task, session.clone());
    setup.apply(task.clone(), route, Some(State::Queued), true);
    plan.reservation.commit(1);
    assert_eq!(counts(&setup), (1, 0, 0));
    let version = setup.scheduler.version();
    task.assignment.as_mut().unwrap().storing = Some(Storing { since: now(), outlives_worker: false });
    setup.apply(task.clone(), route, Some(task.state), false);
    assert_eq!(counts(&setup), (1, 1, 1));
    assert!(setup.scheduler.version() > version, "pools must learn of it");
    assert!(setup.scheduler.drain(&key(0), true, now()).is_none(), "its files may end with it");
    setup.scheduler.finish_attempt(&key(0), &session, task.id, task.fence);
    setup.scheduler.update(&key(0), &session, |entry| assert!(entry.slots.end(task.id, task.fence)));
    assert_eq!(counts(&setup), (0, 0, 1));
    assert!(setup.scheduler.drain(&key(0), true, now()).is_some());
}

#[test]
fn slot_of_a_task_elsewhere_is_free() {
    let mut setup = Setup::new(1);
    setup.connect(AGENT, 9, 1);
    let mut reserve = || {
        let id = setup.next_id();
        setup.scheduler.reserve(&setup.routes[0], id).map(|reservation| (id, reservation))
    };
    let (id, first) = reserve().unwrap();
    let (_, second) = reserve().unwrap();
    let new = Task::new(id, namespace(), Target::Agent(agent_name(AGENT)));
    let mut task = rota_core::task::create(Task { agent_known: true, ..new }, now()).0;
    // The offer was in vain, and a claim in the same commit has given the task to the other worker.
    assign(&mut task, second.session().clone());
    let worker = first.worker().clone();
    first.commit_created(Some(&task));
    let (_, again) = reserve().expect("the slot of the offer");
    assert_eq!(*again.worker(), worker);
    again.commit_created(None);
    assert_eq!(reserve().expect("the slot of no task").1.worker(), &worker);
    second.commit_created(Some(&task));
    let (_, _held) = reserve().unwrap();
    assert!(reserve().is_none(), "the task has a slot of the other worker");
}

#[test]
fn work_is_independent_of_setup_size() {
    assert_eq!(work(100), work(10_000));
}

/// Returns the work of some claims by a worker that covers `size` routes, the first of which have the youngest tasks.
fn claims(size: usize) -> Vec<u64> {
    let scheduler = Scheduler::new(Counter::default());
    let mut setup = Setup { scheduler, routes: Vec::new(), last_task: 0, inboxes: Vec::new() };
    setup.connect(AGENT, 0, 1);
    let words = (0..size).map(|number| format!("word-{number}")).collect();
    setup.scheduler.set_capabilities(&(namespace(), agent_name(AGENT)), &words);
    let mut waiting = Vec::new();
    for number in 0..size {
        let target = Target::Capabilities([format!("word-{number}")].into());
        let route = setup.add_route(target.clone());
        let new = Task { agent_known: true, ..Task::new(setup.next_id(), namespace(), target) };
        let at = now() + std::time::Duration::from_secs((size - number) as u64);
        let task = rota_core::task::create(new, at).0;
        setup.apply(task.clone(), route, None, false);
        waiting.push((route, task));
    }
    let mut counts = Vec::new();
    for _ in 0..80 {
        let (route, mut task) = waiting.pop().expect("a task waits");
        counts.push(setup.count(|setup| {
            let mut plans = setup.scheduler.plan();
            let plan = plans.pop().expect("a claim");
            assert!(plan.claim.routes.len() <= 64, "{}", plan.claim.routes.len());
            assert!(plan.claim.routes.contains(&route), "the oldest task is not claimed");
            assign(&mut task, plan.claim.worker.clone());
            let (worker, session) = (plan.reservation.worker().clone(), plan.claim.worker.clone());
            setup.apply(task.clone(), route, Some(State::Queued), true);
            plan.reservation.commit(1);
            setup.scheduler.release_attempt(&worker, &session, task.id, task.fence, now());
        }));
    }
    counts
}

#[test]
fn claim_is_independent_of_covered_routes() {
    assert_eq!(claims(1000), claims(10_000));
}

/// A count that is too high would be claimed without end, and one that is too low would keep tasks waiting.
#[test]
fn wrong_counts_are_corrected() {
    let scheduler = Scheduler::new(Counter::default());
    let mut setup = Setup { scheduler, routes: Vec::new(), last_task: 0, inboxes: Vec::new() };
    let route = setup.add_route(Target::Agent(agent_name(AGENT)));
    setup.connect(AGENT, 0, 1);
    let correct = |setup: &Setup, count| {
        let commit = Commit { queue_counts: vec![(route, count)], ..Commit::default() };
        setup.scheduler.apply(&commit, now());
    };
    setup.scheduler.restore(Vec::new(), vec![(route, 3)]);
    assert_eq!(setup.scheduler.plan().len(), 1);
    correct(&setup, 0);
    assert!(setup.scheduler.plan().is_empty());
    correct(&setup, 2);
    assert_eq!(setup.scheduler.plan().len(), 1);
    // A removed queue does not return.
    setup.scheduler.apply(&Commit { removed_routes: vec![route], ..Commit::default() }, now());
    correct(&setup, 2);
    assert!(setup.scheduler.plan().is_empty());
}

/// The runtime ends between a commit and its answer: a slot that the commit has filled is not there to release.
#[test]
fn slot_is_not_released_before_its_commit_is_answered() {
    let mut setup = Setup::new(1);
    let id = setup.next_id();
    let reservation = setup.scheduler.reserve(&setup.routes[0], id).expect("a slot is free");
    let new = Task::new(id, namespace(), Target::Agent(agent_name(AGENT)));
    let mut task = rota_core::task::create(Task { agent_known: true, ..new }, now()).0;
    assign(&mut task, reservation.session().clone());
    let commit = async {
        setup.apply(task, RouteId(0), None, true);
        pending::<()>().await;
    };
    assert!(until_answered(reservation, commit).now_or_never().is_none());
    let next = setup.next_id();
    assert!(setup.scheduler.reserve(&setup.routes[0], next).is_none(), "the attempt has the slot");
}
