//! What control planes and fleets say, and the verdicts on it.

use std::time::UNIX_EPOCH;

use rota_proto::v1::{AgentSpec, AgentStatus, Cause, ClaudeRuntime, Loop, Runtime, StoreStatus};

use super::super::Verdict;
use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn reached(status: SystemStatus) -> Reached {
    let endpoint = "http://127.0.0.1:7420".to_owned();
    Reached { status: Some(status), endpoint, at: at(1000), took: Duration::from_millis(10) }
}

fn healthy() -> SystemStatus {
    SystemStatus {
        state: SystemState::Healthy.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        replica: "server".into(),
        server_time: Some(pbjson_types::Timestamp { seconds: 1000, nanos: 0 }),
        store: Some(StoreStatus { answers: true, ..Default::default() }),
        loops: vec![Loop { name: "timer".into(), state: LoopState::Waiting.into(), ..Default::default() }],
        ..Default::default()
    }
}

fn worst<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().filter(|check| check.name == name).max_by_key(|check| check.verdict).unwrap()
}

#[test]
fn a_healthy_control_plane() {
    let checks = status(&reached(healthy()));
    assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:?}");
    let names: Vec<_> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names, ["connection", "version", "clock", "control plane", "store", "loops"]);
}

#[test]
fn each_fault_is_told() {
    let mut ill = healthy();
    ill.version = "0.0.1".into();
    ill.server_time = Some(pbjson_types::Timestamp { seconds: 900, nanos: 0 });
    ill.state = SystemState::Error.into();
    ill.causes = vec![Cause { code: "x".into(), message: "no room".into(), hint: "make room".into() }];
    ill.store = Some(StoreStatus { answers: true, write_error: "disk full".into(), ..Default::default() });
    ill.loops[0].state = LoopState::Stuck.into();
    let checks = status(&reached(ill));
    for (name, verdict, words) in [
        ("version", Verdict::Warn, "0.0.1"),
        ("clock", Verdict::Fail, "behind"),
        ("control plane", Verdict::Fail, "no room"),
        ("store", Verdict::Fail, "disk full"),
        ("loops", Verdict::Fail, "timer is stuck"),
    ] {
        let check = worst(&checks, name);
        assert!(check.verdict == verdict && check.message.contains(words), "{check:?}");
        assert!(!check.hint.is_empty(), "{check:?}");
    }
    let older = Reached { status: None, ..reached(healthy()) };
    assert_eq!(worst(&status(&older), "version").verdict, Verdict::Warn);
}

#[test]
fn clocks_are_compared_with_the_time_of_the_call_in_mind() {
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
fn agents_without_room_are_told() {
    let told = |management, status| {
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
    assert_eq!(told(Managed, with(0, 0, 0)).0, Verdict::Ok, "a pool may be at zero");
    assert_eq!(told(External, with(0, 0, 0)).0, Verdict::Warn);
    assert!(told(Managed, with(3, 0, 0)).1.contains("no worker is connected yet"));
    assert!(told(Managed, with(3, 1, 0)).1.contains("all slots are filled"));
    let trouble = AgentStatus { message: "no such image".into(), ..Default::default() };
    assert_eq!(told(Managed, trouble).0, Verdict::Fail);
    assert_eq!(agents_and_workers(&[], &[], &[])[0].verdict, Verdict::Warn);
    let lost = Worker { name: "namespaces/default/workers/w-1".into(), ..Default::default() };
    let checks = agents_and_workers(&[agent(Managed, with(0, 0, 0))], &[lost], &[]);
    assert!(worst(&checks, "workers").message.contains("w-1"));
}

#[test]
fn what_waits_for_a_breaker_waits_for_no_room() {
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
    assert_eq!(with(BreakerState::Closed), ["coder: 1 task waits, and all slots are filled"]);
    assert!(with(BreakerState::Open).is_empty() && with(BreakerState::HalfOpen).is_empty());
}

#[test]
fn endpoints_are_where_to_connect() {
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
fn the_cli_is_looked_for_only_where_nobody_has_found_it() {
    let managed = agent(Management::Managed, AgentStatus::default());
    assert_eq!(claude_programs(std::slice::from_ref(&managed), &[]), [""]);
    let worker = Worker { agent: "coder".into(), runtime_version: "2".into(), ..Default::default() };
    assert!(claude_programs(&[managed], &[worker]).is_empty());
    let external = agent(Management::External, AgentStatus::default());
    assert!(claude_programs(&[external], &[]).is_empty());
}
