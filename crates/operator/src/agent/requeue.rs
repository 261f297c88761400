//! Decides when an agent is reconciled without a trigger. Pure.

use std::time::Duration;

use rota_core::scaling::{DEFAULT_IDLE_TIMEOUT, REPLACE_AFTER};
use rota_crds::resource::Agent;
use tokio::time::Instant;

use super::dereference::WorkerPod;
use super::state::AgentState;

/// Minimum interval between status writes of an agent that change counters only.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// The same between those of any two agents, on average, if all of them change all the time.
const STATUS_SPACING: Duration = Duration::from_millis(20);
/// Interval at which an agent is reconciled without a trigger, in case one was lost.
const RESYNC_INTERVAL: Duration = Duration::from_secs(300);
/// The same while workers are expected to join.
const JOIN_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The same while a failed pod is kept.
const ENDED_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Delay after an idle timeout at which it has surely expired.
const IDLE_TIMEOUT_SLACK: Duration = Duration::from_millis(50);

/// Returns the minimum interval between status writes of an agent that change counters only, in an installation with so many agents.
pub(super) fn status_interval(agents: usize) -> Duration {
    STATUS_INTERVAL.max(STATUS_SPACING * u32::try_from(agents).unwrap_or(u32::MAX))
}

/// Returns when time alone may have changed something. `unknown` are the pods without a record of their creation.
pub(super) fn after(
    agent: &Agent,
    state: &AgentState,
    status_interval: Duration,
    pods: &[WorkerPod],
    unknown: &[WorkerPod],
    hash: &str,
) -> Duration {
    let mut delay = RESYNC_INTERVAL;
    if state.status_written.is_some_and(|at| at.elapsed() < status_interval) {
        delay = delay.min(status_interval);
    }
    let start_delay = state.start_delay(hash, Instant::now());
    for paused in [start_delay, state.next_isolated_start(Instant::now())] {
        if !paused.is_zero() {
            delay = delay.min(paused);
        }
    }
    if pods.iter().chain(unknown).any(WorkerPod::is_absent) {
        delay = delay.min(JOIN_CHECK_INTERVAL);
    }
    if pods.iter().any(WorkerPod::has_terminated) {
        delay = delay.min(ENDED_CHECK_INTERVAL);
    }
    // They may hold the place of a worker that takes what waits. One that is replaced already needs no further look.
    let useless_for = pods.iter().filter_map(|pod| {
        let is_useless = pod.worker.as_ref().is_some_and(|worker| worker.unavailable);
        pod.unavailable_for.or(pod.idle_for.filter(|_| is_useless))
    });
    let useless_for = useless_for.chain(state.last_try());
    if let Some(remaining) = useless_for.filter_map(|time| REPLACE_AFTER.checked_sub(time)).min() {
        delay = delay.min(remaining + IDLE_TIMEOUT_SLACK);
    }
    let idle_timeout = agent.spec.idle_timeout.map_or(DEFAULT_IDLE_TIMEOUT, |timeout| timeout.0);
    let floor = usize::try_from(agent.spec.replicas).unwrap_or_default();
    if pods.len() > floor {
        let remaining = pods.iter().filter_map(|pod| idle_timeout.checked_sub(pod.idle_for?));
        if let Some(remaining) = remaining.min() {
            delay = delay.min(remaining + IDLE_TIMEOUT_SLACK);
        }
    }
    delay
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::WorkerDemand;

    use super::super::dereference::PodLifecycle;
    use super::super::origin::Origin;
    use super::*;

    #[test]
    fn counters_of_many_agents_are_written_less() {
        for (agents, seconds) in [(1, 5), (100, 5), (1000, 20), (10_000, 200)] {
            assert_eq!(status_interval(agents), Duration::from_secs(seconds), "{agents} agents");
        }
    }

    fn agent() -> Agent {
        let agent = "{apiVersion: rota.dev/v1alpha1, kind: Agent, metadata: {name: coder, namespace: team},
            spec: {runtime: {scripted: {}}}}";
        serde_saphyr::from_str(agent).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_workers_are_replaced_in_time() {
        for (isolated, unavailable, expected) in [
            (true, false, RESYNC_INTERVAL),
            (false, false, Duration::from_secs(20) + IDLE_TIMEOUT_SLACK),
            (true, true, Duration::from_secs(20) + IDLE_TIMEOUT_SLACK),
        ] {
            let worker = WorkerDemand { connected: true, isolated, unavailable, ..Default::default() };
            let pod = WorkerPod {
                lifecycle: PodLifecycle::Serving,
                worker: Some(worker),
                hash: "hash".into(),
                age: REPLACE_AFTER - Duration::from_secs(20),
                idle_for: Some(REPLACE_AFTER - Duration::from_secs(20)),
                ..Default::default()
            };
            let mut state = AgentState::default();
            state.observe_isolation("hash", std::slice::from_ref(&pod), Instant::now());
            assert_eq!(after(&agent(), &state, STATUS_INTERVAL, &[pod], &[], "hash"), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replaced_workers_cause_no_reconciles() {
        let state = AgentState::default();
        for (seconds, expected) in
            [(100, Duration::from_secs(20) + IDLE_TIMEOUT_SLACK), (121, RESYNC_INTERVAL)]
        {
            let pod = WorkerPod {
                lifecycle: PodLifecycle::Serving,
                task: Some("t1".into()),
                unavailable_for: Some(Duration::from_secs(seconds)),
                ..Default::default()
            };
            assert_eq!(
                after(&agent(), &state, STATUS_INTERVAL, &[pod], &[], "hash"),
                expected,
                "{seconds} s"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn kept_unknown_pods_are_looked_at() {
        let agent = agent();
        let (state, pod) = (AgentState::default(), WorkerPod::default());
        let unknown = |lifecycle| [WorkerPod { origin: Origin::Unrecorded, lifecycle, ..pod.clone() }];
        for (unknown, expected) in [
            (unknown(PodLifecycle::Lost), JOIN_CHECK_INTERVAL),
            (unknown(PodLifecycle::Starting), JOIN_CHECK_INTERVAL),
            (unknown(PodLifecycle::Terminating), RESYNC_INTERVAL),
        ] {
            assert_eq!(
                after(&agent, &state, STATUS_INTERVAL, &[], &unknown, "hash"),
                expected,
                "{unknown:?}"
            );
        }
    }
}
