//! Circuit breakers on commits made by hand.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use rota_core::agent::Agent;
use rota_core::failure::{Class, Failure};
use rota_core::quota::CredentialId;
use rota_core::target::{Profile, Target};
use rota_core::task::{self, Assignment, EndedAttempt, Event, Own, Task};
use rota_core::usage::Usage;
use rota_core::{Epoch, Namespace, RouteId, WorkerName};
use rota_store::Dispatch;
use uuid::Uuid;

use super::*;
use crate::scheduler::WorkerEntry;

const POLICY: Policy = Policy { failures: 2, cooldown: Duration::ZERO };

fn key() -> AgentKey {
    (Namespace::new("n").unwrap(), AgentName::new("a").unwrap())
}

fn breakers(policy: Policy) -> Breakers {
    let (namespace, name) = key();
    let spec = v1::Agent { spec: Some(v1::AgentSpec::default()), ..Default::default() };
    let agent = Agent {
        namespace,
        name,
        generation: 1,
        capabilities: [].into(),
        defaults: task::Limits::default(),
        budget: Default::default(),
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
        payload: spec.encode_to_vec().into(),
    };
    let agents = Arc::new(AgentRegistry::default());
    agents.restore(vec![agent]);
    let scheduler = Arc::new(Scheduler::new(Counter::default()));
    Breakers::new(policy, &scheduler, &agents, Arc::new(crate::clock::now))
}

/// Returns breakers on a store whose clock the test sets, in microseconds. It is decades ahead of the machine's.
fn on_clock(policy: Policy) -> (Breakers, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(4_000_000_000_000_000));
    let read = Arc::clone(&time);
    let clock: Clock = Arc::new(move || Timestamp(read.load(Ordering::Relaxed)));
    (Breakers { clock, ..breakers(policy) }, time)
}

fn assignment(own: Own) -> Assignment {
    Assignment {
        worker: WorkerName::new("w").unwrap(),
        agent: Some(key().1),
        epoch: Epoch(1),
        attempt: 1,
        at: Timestamp::default(),
        started_at: None,
        span_id: [1; 8],
        own,
        model: Default::default(),
        attempt_seq: 0,
        logged_bytes: 0,
        reserved: 0,
        unlogged: false,
        usage: Usage::default(),
        inputs_before: 0,
        open_input: Vec::new(),
        paused_at: None,
        paused: std::time::Duration::ZERO,
        reported_at: None,
        resumed_at: None,
        jumped_at: None,
        work_ended: false,
        storing: None,
        stopping: None,
    }
}

fn task(number: u128) -> Task {
    let (namespace, agent) = key();
    let mut task = Task::new(TaskId(Uuid::from_u128(number)), namespace, Target::Agent(agent));
    task.fence = Fence(1);
    task
}

fn change(task: Task, events: Vec<Event>, dispatch: Option<Arc<Dispatch>>) -> TaskChange {
    let (task, events) = (Arc::new(task), events.into());
    TaskChange { task, route: RouteId(1), before: None, events, revision: 1, dispatch, identified: false }
}

/// A commit with the failed attempt of one task.
fn failed(number: u128, class: Class, own: Own) -> Commit {
    let task = task(number);
    let attempt = EndedAttempt {
        assignment: assignment(own),
        fence: task.fence,
        started_at: Some(Timestamp::default()),
        at: Timestamp::default(),
        outcome: AttemptOutcome::Failed,
        failure: Some(Failure::new(class, "no")),
    };
    let ended = AttemptEnded { task: Arc::new(task.clone()), attempt };
    let change = TaskChange { before: Some(task::State::Running), ..change(task, Vec::new(), None) };
    Commit { tasks: vec![change], attempts_ended: vec![ended], ..Commit::default() }
}

/// A commit that assigns one task, or in which its attempt reports.
fn on_worker(number: u128, report: Option<Kind>) -> Commit {
    let mut task = task(number);
    task.assignment = Some(assignment(Own::default()));
    let dispatch = Dispatch { payload: Bytes::new(), secrets: None, previous: Vec::new() };
    let change = match report {
        None => change(task, Vec::new(), Some(Arc::new(dispatch))),
        Some(kind) => {
            let body =
                Body::Report(v1::Event { kind: Some(kind), ..Default::default() }.encode_to_vec().into());
            let event = Event { log_seq: 1, at: Timestamp::default(), attempt: 1, body };
            change(task, vec![event], None)
        }
    };
    Commit { tasks: vec![change], ..Commit::default() }
}

#[test]
fn own_credentials_do_not_count() {
    let breakers = breakers(POLICY);
    let own = Own { credentials: true, ..Own::default() };
    for number in 0..5 {
        assert_eq!(breakers.observe(&failed(number, Class::Auth, own)).opened, 0);
    }
    assert_eq!(breakers.get(&key()), None);
    assert_eq!(breakers.observe(&failed(5, Class::Auth, Own::default())).opened, 0);
    assert_eq!(breakers.observe(&failed(6, Class::Auth, Own::default())).opened, 1);
}

#[test]
fn deleted_agent_gets_no_breaker() {
    let mut breakers = breakers(POLICY);
    breakers.agents = Arc::new(AgentRegistry::default());
    for number in 0..5 {
        breakers.observe(&failed(number, Class::Auth, Own::default()));
    }
    assert!(breakers.all().is_empty());
}

#[test]
fn only_the_probe_closes_by_its_reports() {
    let breakers = breakers(POLICY);
    breakers.observe(&on_worker(1, None));
    for number in 2..4 {
        breakers.observe(&failed(number, Class::Auth, Own::default()));
    }
    assert!(matches!(breakers.state(&key()), State::Open { .. }));
    breakers.tick();
    assert!(matches!(breakers.state(&key()), State::HalfOpen { .. }));
    breakers.observe(&on_worker(4, None));
    let message = || Some(Kind::Message(v1::AgentMessage::default()));
    // Assigned before the breaker opened: no probe.
    breakers.observe(&on_worker(1, message()));
    assert!(matches!(breakers.state(&key()), State::HalfOpen { .. }));
    breakers.observe(&on_worker(4, Some(Kind::Output(v1::Output::default()))));
    assert!(matches!(breakers.state(&key()), State::HalfOpen { .. }));
    breakers.observe(&on_worker(4, message()));
    assert_eq!(breakers.get(&key()), None);
}

#[test]
fn failed_probe_opens_again() {
    let breakers = breakers(POLICY);
    for number in 1..3 {
        breakers.observe(&failed(number, Class::Auth, Own::default()));
    }
    breakers.tick();
    // A failure of an earlier attempt does not count, that of the probe does.
    assert_eq!(breakers.observe(&failed(9, Class::Auth, Own::default())).opened, 0);
    breakers.observe(&on_worker(4, None));
    assert_eq!(breakers.observe(&failed(4, Class::Auth, Own::default())).opened, 1);
}

#[test]
fn probe_lost_in_its_commit_is_replaced() {
    let breakers = breakers(POLICY);
    for number in 1..3 {
        breakers.observe(&failed(number, Class::Auth, Own::default()));
    }
    breakers.tick();
    breakers.scheduler.set_admission(&key(), Admission::ProbeInFlight);
    let mut lost = failed(4, Class::Auth, Own::default());
    lost.tasks[0].before = Some(task::State::Queued);
    lost.attempts_ended[0].attempt.outcome = AttemptOutcome::Lost;
    lost.attempts_ended[0].attempt.failure = None;
    breakers.observe(&lost);
    assert_eq!(breakers.scheduler.admission(&key()), Admission::Probe);
}

#[test]
fn credential_named_in_the_commit_of_a_report_is_known() {
    let breakers = breakers(POLICY);
    let (namespace, agent) = key();
    let worker = WorkerName::new("w").unwrap();
    let profile = Profile {
        namespace: namespace.clone(),
        worker: worker.clone(),
        agent,
        capabilities: Arc::default(),
        task: None,
    };
    let entry = WorkerEntry::new(profile, Epoch(1), "process".to_owned(), Timestamp::default());
    assert!(breakers.scheduler.register(entry).is_ok());
    let worker = (namespace, worker);
    let known = || breakers.scheduler.inspect(&worker, |entry| entry.credential).flatten();
    let report = |credential, identified| {
        let mut commit = on_worker(1, Some(Kind::Output(v1::Output::default())));
        let change = &mut commit.tasks[0];
        (change.before, change.identified) = (Some(task::State::Running), identified);
        let task = Arc::make_mut(&mut change.task);
        task.assignment.as_mut().unwrap().model.credential = Some(credential);
        commit
    };
    let [one, two] = [1, 2].map(|byte| CredentialId([byte; 8]));
    breakers.observe(&report(one, true));
    assert_eq!(known(), Some(one));
    // Another attempt of the worker, which began with what it used before.
    breakers.observe(&report(two, false));
    assert_eq!(known(), Some(one));
}

#[test]
fn breakers_follow_the_clock_of_the_store() {
    let (breakers, time) = on_clock(Policy { cooldown: Duration::from_secs(30), ..POLICY });
    for number in 1..3 {
        breakers.observe(&failed(number, Class::Auth, Own::default()));
    }
    let (start, until) = (breakers.now(), breakers.next().unwrap());
    assert!(until > start && until < start + Duration::from_secs(3600), "{until:?}");
    breakers.tick();
    assert!(matches!(breakers.state(&key()), State::Open { .. }));
    time.store(until.0, Ordering::Relaxed);
    breakers.tick();
    assert!(matches!(breakers.state(&key()), State::HalfOpen { .. }));
}

#[test]
fn cool_downs_follow_the_clock_of_the_store() {
    let (breakers, time) = on_clock(POLICY);
    let (start, (namespace, agent)) = (breakers.now(), key());
    let [one, two] = [1, 2].map(|byte| CredentialId([byte; 8]));
    // The store counts the time from when an agent waits by its own clock.
    let agents = [agent].into();
    breakers.scheduler.set_cool_down(&(namespace.clone(), two), Admission::Closed, &agents);
    assert_eq!(breakers.changed_holds(), Some([(key(), start)].into()));
    let failure = Failure::new(Class::RateLimit, "no");
    let cool_down = CoolDown::after(None, &namespace, one, &failure, start, start, 0.5);
    let until = cool_down.until;
    breakers.restore_cool_downs(vec![CoolDown { agents, ..cool_down }]);
    breakers.tick();
    assert_eq!(breakers.scheduler.quota(&key()), Admission::Closed);
    time.store(until.0, Ordering::Relaxed);
    breakers.tick();
    assert_eq!(breakers.scheduler.quota(&key()), Admission::Probe);
}
