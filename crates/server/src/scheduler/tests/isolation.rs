//! Which agents are known to isolate nothing, and which claims name them.

use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use rota_core::target::{ISOLATED, Profile, Route, Target};
use rota_core::task::Task;
use rota_core::{Epoch, RouteId, TaskId};
use rota_store::Commit;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fixture::{agent_name, change, key, namespace, now};
use crate::scheduler::{Scheduler, SessionHandle, WorkerEntry};

/// Returns a worker of an agent, with the capability `code`.
fn worker(number: usize, agent: usize, isolated: bool) -> WorkerEntry {
    let own: BTreeSet<_> = isolated.then(|| ISOLATED.to_owned()).into_iter().collect();
    let mut capabilities = own.clone();
    capabilities.insert("code".to_owned());
    let profile = Profile {
        namespace: namespace(),
        worker: key(number).1,
        agent: agent_name(agent),
        capabilities: Arc::new(capabilities),
        task: None,
    };
    let mut entry = WorkerEntry::new(profile, Epoch(1), "process".to_owned(), now());
    let (messages, _) = mpsc::channel(1);
    entry.session = Some(SessionHandle { messages, closed: CancellationToken::new() });
    (entry.slot_count, entry.own_capabilities) = (1, own);
    entry
}

/// Makes a task wait for some capabilities.
fn enqueue(scheduler: &Scheduler, number: u32, words: &[&str]) {
    let target = Target::Capabilities(words.iter().map(|word| (*word).to_owned()).collect());
    let route = Route { namespace: namespace(), target: target.clone() };
    let id = TaskId(uuid::Uuid::from_u128(number.into()));
    let new = Task { agent_known: true, ..Task::new(id, namespace(), target) };
    let task = rota_core::task::create(new, now()).0;
    let (routes, tasks) = (vec![(RouteId(number), route)], vec![change(task, RouteId(number), None, false)]);
    scheduler.apply(&Commit { routes, tasks, ..Commit::default() }, now());
}

#[test]
fn claims_for_isolation_name_agents_without() {
    let scheduler = Scheduler::new(Counter::default());
    for (number, agent, isolated) in [(0, 0, true), (1, 0, false), (2, 1, false)] {
        assert!(scheduler.register(worker(number, agent, isolated)).is_ok());
    }
    let lacks = [0, 1, 2].map(|agent| scheduler.lacks_isolation(&(namespace(), agent_name(agent))));
    assert_eq!(lacks, [false, true, false], "the last one has no workers");
    enqueue(&scheduler, 0, &["code", ISOLATED]);
    let plans = scheduler.plan();
    let named: Vec<_> =
        plans.iter().map(|plan| (&plan.claim.worker.worker, &*plan.claim.not_isolating)).collect();
    assert_eq!(named, [(&key(0).1, &BTreeSet::from([agent_name(1)]))]);
    enqueue(&scheduler, 1, &["code"]);
    let plain = scheduler.plan();
    assert!(!plain.is_empty() && plain.iter().all(|plan| plan.claim.not_isolating.is_empty()));
}

/// A list of its own for each claim would cost as much as there are agents.
#[test]
fn claims_share_one_list_of_agents() {
    let scheduler = Scheduler::new(Counter::default());
    for (number, agent, isolated) in [(0, 0, true), (1, 0, true), (2, 1, false), (3, 2, false)] {
        assert!(scheduler.register(worker(number, agent, isolated)).is_ok());
    }
    for _ in 0..2 {
        enqueue(&scheduler, 0, &["code", ISOLATED]);
    }
    let plans = scheduler.plan();
    let [one, two] = &plans[..] else { panic!("{} claims", plans.len()) };
    assert_eq!(*one.claim.not_isolating, BTreeSet::from([agent_name(1), agent_name(2)]));
    assert!(Arc::ptr_eq(&one.claim.not_isolating, &two.claim.not_isolating));
}

#[test]
fn agents_lack_isolation_while_workers_without_take_tasks() {
    let scheduler = Scheduler::new(Counter::default());
    let agent = (namespace(), agent_name(0));
    let lacks = || {
        let listed = scheduler.state().matching.isolation.lacking(&agent.0).contains(&agent.1);
        assert_eq!(scheduler.lacks_isolation(&agent), listed);
        listed
    };
    let leave = |number| {
        let session = scheduler.inspect(&key(number), WorkerEntry::worker_ref).expect("a worker");
        assert!(scheduler.remove(&key(number), &session));
    };
    assert!(!lacks(), "it has no workers");
    for number in [0, 1] {
        assert!(scheduler.register(worker(number, 0, false)).is_ok());
        assert!(lacks());
    }
    scheduler.update_any(&key(0), |entry| entry.draining = true);
    assert!(lacks(), "the other one takes tasks");
    scheduler.update_any(&key(1), |entry| entry.draining = true);
    assert!(!lacks(), "none takes tasks");
    scheduler.update_any(&key(1), |entry| entry.draining = false);
    assert!(lacks());
    assert!(scheduler.register(worker(2, 0, true)).is_ok());
    assert!(!lacks());
    scheduler.update_any(&key(2), |entry| entry.session = None);
    assert!(!lacks(), "its machine isolates, and it may be back");
    leave(2);
    assert!(lacks());
    leave(1);
    assert!(!lacks(), "the worker that is left takes no tasks");
    leave(0);
    assert!(!lacks());
}
