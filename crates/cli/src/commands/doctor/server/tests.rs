//! Verdicts on the status of control planes, agents and workers.

use std::time::UNIX_EPOCH;

use rota_proto::v1::{
    AgentSpec, AgentStatus, BackgroundTask, Cause, ClaudeRuntime, Runtime, StoreStatus, runtime,
};

use super::super::Verdict;
use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn reached(status: SystemStatus) -> Reached {
    let endpoint = "http://127.0.0.1:7420".to_owned();
    let (at, took) = (at(1000), Duration::from_millis(10));
    Reached { status: Some(status), is_restricted: false, endpoint, at, took }
}

fn healthy() -> SystemStatus {
    SystemStatus {
        state: SystemState::Healthy.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        replica: "server".into(),
        server_time: Some(pbjson_types::Timestamp { seconds: 1000, nanos: 0 }),
        store: Some(StoreStatus { available: true, ..Default::default() }),
        background_tasks: vec![BackgroundTask {
            name: "timer".into(),
            state: BackgroundTaskState::Idle.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn worst<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().filter(|check| check.name == name).max_by_key(|check| check.verdict).unwrap()
}

#[test]
fn healthy_control_plane_passes() {
    let checks = status(&reached(healthy()));
    assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:?}");
    let names: Vec<_> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names, ["connection", "version", "clock", "control plane", "store", "background tasks"]);
}

#[test]
fn each_fault_is_reported() {
    let mut unhealthy = healthy();
    unhealthy.version = "0.0.1".into();
    unhealthy.server_time = Some(pbjson_types::Timestamp { seconds: 900, nanos: 0 });
    unhealthy.state = SystemState::Error.into();
    unhealthy.causes = vec![Cause { code: "x".into(), message: "no room".into(), hint: "make room".into() }];
    unhealthy.store =
        Some(StoreStatus { available: true, write_error: "disk full".into(), ..Default::default() });
    unhealthy.background_tasks[0].state = BackgroundTaskState::Stuck.into();
    let checks = status(&reached(unhealthy));
    for (name, verdict, words) in [
        ("version", Verdict::Warn, "0.0.1"),
        ("clock", Verdict::Fail, "behind"),
        ("control plane", Verdict::Fail, "no room"),
        ("store", Verdict::Fail, "disk full"),
        ("background tasks", Verdict::Fail, "timer is stuck"),
    ] {
        let check = worst(&checks, name);
        assert!(check.verdict == verdict && check.message.contains(words), "{check:?}");
        assert!(!check.hint.is_empty(), "{check:?}");
    }
    let older = Reached { status: None, ..reached(healthy()) };
    assert_eq!(worst(&status(&older), "version").verdict, Verdict::Warn);
}

#[test]
fn clock_skew_allows_for_call_duration() {
    let verdict = |server, took| clocks(at(server), at(1000), Duration::from_secs(took)).verdict;
    assert_eq!(verdict(1001, 0), Verdict::Ok);
    assert_eq!(verdict(1003, 0), Verdict::Warn);
    assert_eq!(verdict(1003, 4), Verdict::Ok);
    assert_eq!(verdict(900, 0), Verdict::Fail);
}

fn agent(management: Management, status: AgentStatus) -> Agent {
    let runtime = Runtime { kind: Some(runtime::Kind::Claude(ClaudeRuntime::default())) };
    let spec = AgentSpec { runtime: Some(runtime), management: management.into(), ..Default::default() };
    let name = "namespaces/default/agents/coder".to_owned();
    Agent { name, spec: Some(spec), status: Some(status), ..Default::default() }
}

#[test]
fn agents_without_capacity_are_reported() {
    let verdict = |management, status| {
        let checks = agents_and_workers(&[agent(management, status)], &[], &[]);
        (worst(&checks, "agents").verdict, worst(&checks, "agents").message.clone())
    };
    use Management::{External, Managed};
    let with = |queued_tasks, workers, free_slots| AgentStatus {
        queued_tasks,
        workers,
        free_slots,
        ..Default::default()
    };
    assert_eq!(verdict(Managed, with(0, 0, 0)).0, Verdict::Ok, "a pool may be at zero");
    assert_eq!(verdict(External, with(0, 0, 0)).0, Verdict::Warn);
    assert!(verdict(Managed, with(3, 0, 0)).1.contains("no worker is connected yet"));
    assert!(verdict(Managed, with(3, 1, 0)).1.contains("all slots are in use"));
    let trouble = AgentStatus { message: "no such image".into(), ..Default::default() };
    assert_eq!(verdict(Managed, trouble).0, Verdict::Fail);
    assert_eq!(agents_and_workers(&[], &[], &[])[0].verdict, Verdict::Warn);
    let lost = Worker { name: "namespaces/default/workers/w-1".into(), ..Default::default() };
    let checks = agents_and_workers(&[agent(Managed, with(0, 0, 0))], &[lost], &[]);
    assert!(worst(&checks, "workers").message.contains("w-1"));
}

#[test]
fn sick_workers_are_named_instead_of_slots() {
    let waiting = AgentStatus { queued_tasks: 1, workers: 1, ..Default::default() };
    let sick = Worker {
        name: "namespaces/default/workers/w-1".into(),
        agent: "coder".into(),
        connected: true,
        slots: 1,
        not_ready_reason: "no space left".into(),
        ..Default::default()
    };
    let workers = vec![sick.clone(); 12];
    let checks = agents_and_workers(&[agent(Management::Managed, waiting.clone())], &workers, &[]);
    assert!(worst(&checks, "agents").message.ends_with("its workers take none"), "{checks:?}");
    let workers: Vec<_> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Warn)
        .map(|check| check.message.as_str())
        .collect();
    assert_eq!(workers[1], "w-1 gets no tasks: no space left");
    assert_eq!((workers.len(), workers[11]), (12, "2 more get no tasks"));
    // One that takes tasks is busy: more workers would help.
    let busy = Worker { not_ready_reason: String::new(), ..sick.clone() };
    let checks = agents_and_workers(&[agent(Management::Managed, waiting)], &[sick, busy], &[]);
    assert!(worst(&checks, "agents").message.contains("all slots are in use"), "{checks:?}");
}

#[test]
fn open_breaker_hides_lack_of_capacity() {
    let full = AgentStatus { queued_tasks: 1, workers: 1, ..Default::default() };
    let agents = [agent(Management::Managed, full)];
    let with = |state: BreakerState| {
        let breaker = Breaker { agent: agents[0].name.clone(), state: state.into(), ..Default::default() };
        let checks = agents_and_workers(&agents, &[], &[breaker]);
        checks
            .into_iter()
            .filter(|check| check.name == "agents")
            .map(|check| check.message)
            .collect::<Vec<_>>()
    };
    assert_eq!(with(BreakerState::Closed), ["coder: 1 task is queued and all slots are in use"]);
    assert!(with(BreakerState::Open).is_empty() && with(BreakerState::HalfOpen).is_empty());
}

#[test]
fn addresses_come_from_endpoints() {
    for (endpoint, wanted) in [
        ("http://127.0.0.1:7420", "127.0.0.1:7420"),
        ("https://rota.example/", "rota.example:443"),
        ("http://[::1]", "[::1]:80"),
        ("https://[::1]:7420", "[::1]:7420"),
    ] {
        assert_eq!(address(endpoint), wanted);
    }
}

#[test]
fn cli_is_checked_unless_worker_has_it() {
    let managed = agent(Management::Managed, AgentStatus::default());
    assert_eq!(claude::programs(std::slice::from_ref(&managed), &[]), [""]);
    let worker = Worker { agent: "coder".into(), runtime_version: "2".into(), ..Default::default() };
    assert!(claude::programs(&[managed], &[worker]).is_empty());
    let external = agent(Management::External, AgentStatus::default());
    assert!(claude::programs(&[external], &[]).is_empty());
}
