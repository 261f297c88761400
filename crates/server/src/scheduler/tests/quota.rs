//! What workers get while a credential of their agent cools down.

use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use rota_core::quota::CredentialId;
use rota_core::target::{Profile, Route, Target};
use rota_core::task::{State, Task};
use rota_core::{Epoch, RouteId, TaskId};
use rota_store::{Commit, CredentialKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fixture::{agent_name, assign, change, key, namespace, now};
use crate::scheduler::{Admission, Scheduler, SessionHandle, WorkerEntry};

const ONE: CredentialId = CredentialId([1; 8]);
const TWO: CredentialId = CredentialId([2; 8]);

struct Setup {
    scheduler: Scheduler,
    inboxes: Vec<mpsc::Receiver<Box<rota_proto::worker::v1::SessionResponse>>>,
    tasks: Vec<Task>,
}

impl Setup {
    /// Returns one agent with waiting tasks.
    fn new(tasks: u128) -> Self {
        let scheduler = Scheduler::new(Counter::default());
        let target = Target::Agent(agent_name(0));
        let route = Route { namespace: namespace(), target: target.clone() };
        scheduler.apply(&Commit { routes: vec![(RouteId(0), route)], ..Commit::default() }, now());
        let mut setup = Self { scheduler, inboxes: Vec::new(), tasks: Vec::new() };
        for number in 0..tasks {
            let new = Task::new(TaskId(uuid::Uuid::from_u128(number)), namespace(), target.clone());
            let task = rota_core::task::create(Task { agent_known: true, ..new }, now()).0;
            setup.apply(task.clone(), None, false);
            setup.tasks.push(task);
        }
        setup
    }

    fn apply(&self, task: Task, before: Option<State>, assigned: bool) {
        let commit = Commit { tasks: vec![change(task, RouteId(0), before, assigned)], ..Commit::default() };
        self.scheduler.apply(&commit, now());
    }

    fn connect(&mut self, worker: usize, slots: usize, credential: Option<CredentialId>) {
        let profile = Profile {
            namespace: namespace(),
            worker: key(worker).1,
            agent: agent_name(0),
            capabilities: Arc::default(),
            task: None,
        };
        let mut entry = WorkerEntry::new(profile, Epoch(1), "process".to_owned(), now());
        let (messages, inbox) = mpsc::channel(1);
        self.inboxes.push(inbox);
        entry.session = Some(SessionHandle { messages, closed: CancellationToken::new() });
        (entry.slot_count, entry.credential) = (slots, credential);
        assert!(self.scheduler.register(entry).is_ok());
    }

    fn set(&self, admission: Admission) {
        self.scheduler.set_cool_down(&one(), admission, &BTreeSet::from([agent_name(0)]));
    }

    /// Commits what may be claimed now: returns the slots, and the credentials that they probe.
    fn claim(&mut self, assigned: usize) -> Vec<(usize, Option<CredentialId>)> {
        let mut claims = Vec::new();
        for plan in self.scheduler.plan() {
            claims.push((plan.claim.slots, plan.claim.probes));
            for _ in 0..assigned.min(plan.claim.slots) {
                let mut task = self.tasks.remove(0);
                assign(&mut task, plan.claim.worker.clone());
                self.apply(task, Some(State::Queued), true);
            }
            plan.reservation.commit(assigned.min(plan.claim.slots));
        }
        claims
    }

    fn quota(&self) -> Admission {
        self.scheduler.quota(&(namespace(), agent_name(0)))
    }
}

fn one() -> CredentialKey {
    (namespace(), ONE)
}

#[test]
fn probe_is_taken_until_the_store_decides() {
    let mut setup = Setup::new(9);
    setup.set(Admission::Closed);
    setup.connect(0, 4, Some(ONE));
    setup.connect(1, 4, Some(ONE));
    assert!(setup.claim(1).is_empty());
    setup.set(Admission::Probe);
    // Only a claim can probe.
    let route = Route { namespace: namespace(), target: Target::Agent(agent_name(0)) };
    assert!(setup.scheduler.reserve(&route, TaskId(uuid::Uuid::from_u128(99))).is_none());
    let plans = setup.scheduler.plan();
    assert_eq!(
        plans.iter().map(|plan| (plan.claim.slots, plan.claim.probes)).collect::<Vec<_>>(),
        [(1, Some(ONE))]
    );
    assert_eq!(setup.quota(), Admission::ProbeInFlight);
    // The commit gave the slot to a task with a key of its own: the credential has no probe yet.
    let plan = plans.into_iter().next().unwrap();
    let mut task = setup.tasks.remove(0);
    assign(&mut task, plan.claim.worker.clone());
    setup.apply(task, Some(State::Queued), true);
    plan.reservation.commit(1);
    assert_eq!(setup.quota(), Admission::Probe);
    assert_eq!(setup.claim(1)[0], (1, Some(ONE)));
    // Now it has one.
    setup.set(Admission::ProbeInFlight);
    assert!(setup.claim(1).is_empty());
    // The probe has shown nothing in time.
    setup.set(Admission::Probe);
    assert_eq!(setup.claim(0), [(1, Some(ONE))]);
    // It found no task: the tick returns it, without a storm of claims until then.
    assert!(setup.claim(0).is_empty());
    setup.set(Admission::Probe);
    assert_eq!(setup.claim(1)[0], (1, Some(ONE)));
    setup.scheduler.set_cool_down(&one(), Admission::Open, &BTreeSet::new());
    assert_eq!(setup.quota(), Admission::Open);
    let slots: usize = setup.claim(9).iter().map(|(slots, _)| slots).sum();
    assert!(slots > 1);
}

#[test]
fn new_workers_get_one_task_until_they_name_a_credential() {
    let mut setup = Setup::new(9);
    setup.connect(0, 4, None);
    setup.set(Admission::Closed);
    assert_eq!(setup.quota(), Admission::Closed, "no worker has another credential");
    assert_eq!(setup.claim(1), [(1, None)]);
    assert!(setup.claim(1).is_empty());
    setup.scheduler.set_credential(&key(0), TWO);
    assert_eq!(setup.quota(), Admission::Open);
    assert_eq!(setup.scheduler.unused_credentials(&(namespace(), agent_name(0))), [ONE]);
    let slots: usize = setup.claim(3).iter().map(|(slots, _)| slots).sum();
    assert_eq!(slots, 3);
    // After a change of the agent it is not known.
    setup.scheduler.forget_credentials(&(namespace(), agent_name(0)));
    assert_eq!(setup.quota(), Admission::Closed);
    setup.connect(1, 4, Some(ONE));
    assert!(setup.scheduler.unused_credentials(&(namespace(), agent_name(0))).is_empty());
    assert!(setup.claim(1).is_empty());
    assert_eq!(setup.scheduler.held_agents(), [(namespace(), agent_name(0))]);
}
