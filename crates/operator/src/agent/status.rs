//! Derives the status of an `Agent` resource. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use rota_core::text::prefix;
use rota_crds::Management;
use rota_crds::resource::{Agent, AgentStatus, Condition, WorkerFailure, condition};
use rota_proto::num::to_i32;
use rota_proto::{names, v1};

use super::demand::DemandSnapshot;
use super::dereference::{PodLifecycle, WorkerPod};
use super::start_failure::StartFailure;
use crate::cluster::{AGENT, ROLE};

pub(super) const MAX_MESSAGE_BYTES: usize = 1024;
pub(super) const MAX_REASON_BYTES: usize = 256;
/// Time for which the last failure of a worker is shown.
const LAST_FAILURE_TTL: SignedDuration = SignedDuration::from_hours(24);

/// Observations that a status is derived from.
pub(crate) struct StatusInput<'a> {
    pub pods: &'a [WorkerPod],
    pub demand: &'a DemandSnapshot,
    /// Hash of the current pod spec.
    pub hash: &'a str,
    /// Why the agent's spec is not accepted.
    pub rejected: Option<&'a StartFailure>,
    /// Why its workers do not start.
    pub start_failure: Option<&'a StartFailure>,
}

/// Builds the status with its counters and conditions.
pub(crate) fn build(agent: &Agent, input: &StatusInput<'_>, now: Timestamp) -> AgentStatus {
    let workers = &input.demand.demand.workers;
    let connected = || workers.iter().filter(|worker| worker.connected && !worker.draining);
    let pods: Vec<_> = input.pods.iter().filter(|pod| pod.task.is_none() && !pod.has_terminated()).collect();
    let ready = count(connected());
    let busy = |worker: &&v1::WorkerDemand| worker.running > 0;
    let failure = input.rejected.or(input.start_failure);
    let unavailable = unavailable(connected);
    let mut status = AgentStatus {
        conditions: Vec::new(),
        observed_generation: agent.metadata.generation,
        replicas: count(pods.iter()),
        selector: Some(format!("{AGENT}={},{ROLE}=worker", agent.name_any())),
        ready_workers: ready,
        busy_workers: count(workers.iter().filter(|worker| worker.connected).filter(busy)),
        idle_workers: count(connected().filter(|worker| worker.running == 0)),
        queued_tasks: input.demand.demand.queued,
        running_tasks: input.demand.demand.running,
        message: failure.map(|failure| prefix(&failure.message, MAX_MESSAGE_BYTES).to_owned()),
        last_failure: None,
        accepted_spec: None,
    };
    let mut put = |type_: &str, holds: bool, reason: &str, message: &str| {
        let holds = if holds { "True" } else { "False" };
        status.conditions.push(condition_of(agent, type_, holds, reason, message, now));
    };
    match input.rejected {
        None => put(condition::ACCEPTED, true, "Accepted", ""),
        Some(failure) => put(condition::ACCEPTED, false, &failure.reason, &failure.message),
    }
    match input.start_failure {
        None => put(condition::ABLE_TO_SCALE, true, "NoFailure", ""),
        Some(failure) => put(condition::ABLE_TO_SCALE, false, &failure.reason, &failure.message),
    }
    // A pool that has its workers serves, though one more cannot be started.
    let serves = input.rejected.is_none() && ready >= agent.spec.replicas.max(1);
    match failure.filter(|_| !serves) {
        Some(failure) => put(condition::READY, false, &failure.reason, &failure.message),
        None if ready < agent.spec.replicas => {
            put(condition::READY, false, "Starting", "fewer workers are connected than replicas");
        }
        None if ready == 0 && agent.spec.management == Some(Management::External) => {
            put(condition::READY, false, "NoWorkers", "no worker is connected; the operator starts none");
        }
        None if ready == 0 && !pods.is_empty() => {
            put(condition::READY, false, "Starting", "no worker is connected yet");
        }
        None if ready == 0 && agent.spec.max_replicas == Some(0) => {
            put(condition::READY, true, "Stopped", "maxReplicas is 0: no worker is started");
        }
        None if unavailable.is_some() => {
            put(condition::READY, false, "WorkersNotReady", unavailable.as_deref().unwrap_or_default());
        }
        None if ready == 0 => {
            put(condition::READY, true, "ScaledToZero", "the first task starts a worker");
        }
        None => put(condition::READY, true, "WorkersConnected", ""),
    }
    let progressing = pods.iter().any(|pod| {
        pod.lifecycle != PodLifecycle::Serving
            || pod.hash != input.hash
            || pod.worker.as_ref().is_some_and(|worker| worker.draining)
    });
    match progressing {
        true => {
            put(condition::PROGRESSING, true, "PodsChanging", "pods are being started, drained or replaced")
        }
        false => put(condition::PROGRESSING, false, "Steady", ""),
    }
    match connected().find(|worker| !worker.isolated) {
        Some(worker) => {
            let reason = match worker.not_isolated_reason.as_str() {
                "" => "the worker gives no reason",
                reason => reason,
            };
            let message = format!("worker {}: {reason}", names::last(&worker.worker));
            put(condition::ISOLATED, false, "NotIsolated", &message);
        }
        None if ready > 0 => put(condition::ISOLATED, true, "Confined", ""),
        // No worker has stated it.
        None => {}
    }
    status
}

/// Returns why none of the connected workers takes tasks, in the words of the first; `None` if one does, or there is none.
/// Names no count, which would change with each of them.
fn unavailable<'a, W: Iterator<Item = &'a v1::WorkerDemand>>(connected: impl Fn() -> W) -> Option<String> {
    let first = connected().next()?;
    let all = connected().all(|worker| worker.unavailable);
    let (name, reason) = (names::last(&first.worker), &first.unavailable_reason);
    all.then(|| format!("the connected workers take no tasks; worker {name}: {reason}"))
}

/// Returns the last failure of a worker, unless it is old. One that was written before outlives a restart of the operator.
pub(crate) fn last_failure(
    agent: &Agent,
    observed: Option<&WorkerFailure>,
    now: Timestamp,
) -> Option<WorkerFailure> {
    let written = || agent.status.as_ref()?.last_failure.as_ref();
    let last = observed.or_else(written)?;
    (now.duration_since(last.time.0) < LAST_FAILURE_TTL).then(|| last.clone())
}

/// Builds the status of an agent that cannot be reconciled for a while: what was last known, with conditions that are
/// unknown. A spec that was accepted stays so.
pub(crate) fn unknown(agent: &Agent, reason: &str, message: &str, now: Timestamp) -> AgentStatus {
    let mut status = agent.status.clone().unwrap_or_default();
    let accepted = |condition: &Condition| {
        condition.type_ == condition::ACCEPTED
            && condition.status != "Unknown"
            && condition.observed_generation == agent.metadata.generation
    };
    let mut unknown = vec![condition::READY];
    if !status.conditions.iter().any(accepted) {
        unknown.push(condition::ACCEPTED);
    }
    status.conditions.retain(|condition| !unknown.contains(&condition.type_.as_str()));
    for type_ in unknown {
        status.conditions.push(condition_of(agent, type_, "Unknown", reason, message, now));
    }
    status.message = Some(prefix(message, MAX_MESSAGE_BYTES).to_owned());
    status
}

/// Returns whether two statuses differ in more than counters, whose writes may be delayed.
pub(crate) fn differs_beyond_counters(old: Option<&AgentStatus>, new: &AgentStatus) -> bool {
    let without_counters = |status: &AgentStatus| AgentStatus {
        replicas: 0,
        ready_workers: 0,
        busy_workers: 0,
        idle_workers: 0,
        queued_tasks: 0,
        running_tasks: 0,
        ..status.clone()
    };
    old.is_none_or(|old| without_counters(old) != without_counters(new))
}

/// Builds a condition. Its transition time is kept while its status does not change.
fn condition_of(
    agent: &Agent,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    let mut conditions = agent.status.iter().flat_map(|status| &status.conditions);
    let old = conditions.find(|condition| condition.type_ == type_);
    let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: prefix(message, MAX_MESSAGE_BYTES).to_owned(),
        observed_generation: agent.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    to_i32(items.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(replicas: i32) -> Agent {
        let mut agent = Agent::default();
        agent.metadata.name = Some("coder".into());
        agent.metadata.generation = Some(3);
        agent.spec.replicas = replicas;
        agent
    }

    fn built(agent: &Agent, demand: &DemandSnapshot, start_failure: Option<&StartFailure>) -> AgentStatus {
        let input = StatusInput { pods: &[], demand, hash: "h", rejected: None, start_failure };
        build(agent, &input, Timestamp::from_second(7).unwrap())
    }

    fn ready(status: &AgentStatus) -> (&str, &str) {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        (ready.status.as_str(), ready.reason.as_str())
    }

    #[test]
    fn agent_is_ready_with_its_replicas() {
        let none = DemandSnapshot::default();
        assert_eq!(ready(&built(&agent(0), &none, None)), ("True", "ScaledToZero"));
        assert_eq!(ready(&built(&agent(1), &none, None)), ("False", "Starting"));
        let worker = v1::WorkerDemand { connected: true, running: 1, ..Default::default() };
        let demand = v1::Demand { workers: vec![worker], running: 1, ..Default::default() };
        let demand = DemandSnapshot { demand, ..Default::default() };
        let status = built(&agent(1), &demand, None);
        assert_eq!(ready(&status), ("True", "WorkersConnected"));
        assert_eq!((status.ready_workers, status.busy_workers, status.idle_workers), (1, 1, 0));
    }

    #[test]
    fn pool_whose_workers_take_nothing_is_not_ready() {
        let sick = v1::WorkerDemand {
            worker: "namespaces/default/workers/w-1".into(),
            connected: true,
            unavailable: true,
            unavailable_reason: "no space left".into(),
            ..Default::default()
        };
        let with = |workers: Vec<v1::WorkerDemand>| {
            let demand = v1::Demand { workers, ..Default::default() };
            built(&agent(1), &DemandSnapshot { demand, ..Default::default() }, None)
        };
        let status = with(vec![sick.clone()]);
        assert_eq!(ready(&status), ("False", "WorkersNotReady"));
        let named = status.conditions.iter().any(|it| it.message.ends_with("worker w-1: no space left"));
        assert!(named, "{status:?}");
        let healthy = v1::WorkerDemand { connected: true, ..Default::default() };
        assert_eq!(ready(&with(vec![sick, healthy])), ("True", "WorkersConnected"));
    }

    #[test]
    fn attempts_that_are_not_isolated_are_a_condition() {
        let isolated = |workers: &[(bool, &str)]| {
            let workers = workers.iter().map(|(isolated, reason)| v1::WorkerDemand {
                worker: "namespaces/default/workers/w-1".into(),
                connected: true,
                isolated: *isolated,
                not_isolated_reason: (*reason).into(),
                ..Default::default()
            });
            let demand = v1::Demand { workers: workers.collect(), ..Default::default() };
            let status = built(&agent(0), &DemandSnapshot { demand, ..Default::default() }, None);
            let condition = status.conditions.into_iter().find(|it| it.type_ == condition::ISOLATED);
            condition.map(|it| (it.status, it.message))
        };
        assert_eq!(isolated(&[]), None, "unknown");
        assert_eq!(isolated(&[(true, "")]), Some(("True".into(), String::new())));
        let old = "Landlock has ABI 3";
        let named = format!("worker w-1: {old}");
        assert_eq!(isolated(&[(true, ""), (false, old)]), Some(("False".into(), named)));
    }

    #[test]
    fn pods_without_connection_are_not_ready() {
        let pod = WorkerPod { hash: "h".into(), ..WorkerPod::default() };
        let none = DemandSnapshot::default();
        let input =
            StatusInput { pods: &[pod], demand: &none, hash: "h", rejected: None, start_failure: None };
        let status = build(&agent(0), &input, Timestamp::from_second(7).unwrap());
        assert_eq!(ready(&status), ("False", "Starting"));
        let mut external = agent(0);
        external.spec.management = Some(Management::External);
        assert_eq!(ready(&built(&external, &none, None)), ("False", "NoWorkers"));
        let mut stopped = agent(0);
        stopped.spec.max_replicas = Some(0);
        assert_eq!(ready(&built(&stopped, &none, None)), ("True", "Stopped"));
    }

    #[test]
    fn pool_with_its_workers_is_ready_though_it_cannot_grow() {
        let failure = StartFailure::new("Unschedulable", "no nodes");
        let with = |connected| {
            let worker = v1::WorkerDemand { connected, running: 1, ..Default::default() };
            let demand = v1::Demand { workers: vec![worker], ..Default::default() };
            built(&agent(1), &DemandSnapshot { demand, ..Default::default() }, Some(&failure))
        };
        let status = with(true);
        assert_eq!(ready(&status), ("True", "WorkersConnected"));
        let of_type = |condition: &&Condition| condition.type_ == condition::ABLE_TO_SCALE;
        let scaling = status.conditions.iter().find(of_type).unwrap();
        assert_eq!((scaling.status.as_str(), scaling.reason.as_str()), ("False", "Unschedulable"));
        assert_eq!(ready(&with(false)), ("False", "Unschedulable"));
    }

    #[test]
    fn last_failure_is_kept_for_a_day() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let failure = |pod: &str| WorkerFailure {
            time: rota_crds::Time(at(100)),
            pod: pod.into(),
            reason: "OOMKilled".into(),
            message: String::new(),
        };
        let mut agent = agent(0);
        assert_eq!(last_failure(&agent, None, at(0)), None);
        agent.status = Some(AgentStatus { last_failure: Some(failure("a")), ..AgentStatus::default() });
        assert_eq!(last_failure(&agent, None, at(200)), Some(failure("a")), "the operator was started since");
        assert_eq!(last_failure(&agent, Some(&failure("b")), at(200)), Some(failure("b")));
        assert_eq!(last_failure(&agent, Some(&failure("b")), at(100 + 24 * 3600)), None);
    }

    #[test]
    fn failing_agent_is_unknown_and_stays_accepted() {
        let mut agent = agent(0);
        let now = Timestamp::from_second(9).unwrap();
        let fresh = unknown(&agent, "ControlPlaneUnavailable", "no response", now);
        let types: Vec<_> = fresh
            .conditions
            .iter()
            .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
            .collect();
        assert_eq!(types, [("Ready", "Unknown"), ("Accepted", "Unknown")]);
        agent.status = Some(built(&agent, &DemandSnapshot::default(), None));
        let known = unknown(&agent, "ControlPlaneUnavailable", "no response", now);
        assert_eq!(ready(&known), ("Unknown", "ControlPlaneUnavailable"));
        let accepted = known.conditions.iter().find(|condition| condition.type_ == "Accepted").unwrap();
        assert_eq!(accepted.status, "True");
        agent.status = Some(known.clone());
        let later = Timestamp::from_second(99).unwrap();
        assert_eq!(unknown(&agent, "ControlPlaneUnavailable", "no response", later), known, "written once");
    }

    #[test]
    fn start_failure_is_the_reason() {
        let failure = StartFailure::new("ImagePullBackOff", "no such image");
        let status = built(&agent(0), &DemandSnapshot::default(), Some(&failure));
        assert_eq!(ready(&status), ("False", "ImagePullBackOff"));
        assert_eq!(status.message.as_deref(), Some("no such image"));
    }

    #[test]
    fn counters_alone_may_be_delayed() {
        let before = built(&agent(0), &DemandSnapshot::default(), None);
        let demand = v1::Demand { queued: 9, ..Default::default() };
        let after = built(&agent(0), &DemandSnapshot { demand, ..Default::default() }, None);
        assert_ne!(before, after);
        assert!(!differs_beyond_counters(Some(&before), &after));
        assert!(differs_beyond_counters(None, &after));
    }
}
