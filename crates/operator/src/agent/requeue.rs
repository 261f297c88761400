//! Decides when an agent is reconciled without a trigger. Pure.

use std::time::Duration;

use rota_core::scaling::{DEFAULT_IDLE_TIMEOUT, REPLACE_AFTER};
use rota_crds::resource::Agent;
use tokio::time::Instant;

use super::STATUS_INTERVAL;
use super::dereference::WorkerPod;
use super::state::AgentState;

/// Interval at which an agent is reconciled without a trigger, in case one was lost.
const RESYNC_INTERVAL: Duration = Duration::from_secs(300);
/// The same while workers are expected to join.
const JOIN_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The same while a failed pod is kept.
const ENDED_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Delay after an idle timeout at which it has surely expired.
const IDLE_TIMEOUT_SLACK: Duration = Duration::from_millis(50);

/// Returns when time alone may have changed something. `unknown` are the pods without a record of their creation.
pub(super) fn after(
    agent: &Agent,
    state: &AgentState,
    pods: &[WorkerPod],
    unknown: &[WorkerPod],
    hash: &str,
) -> Duration {
    let mut delay = RESYNC_INTERVAL;
    if state.status_written.is_some_and(|at| at.elapsed() < STATUS_INTERVAL) {
        delay = delay.min(STATUS_INTERVAL);
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
    let sick = pods.iter().filter_map(|pod| Some(REPLACE_AFTER.saturating_sub(pod.unavailable_for?)));
    if let Some(remaining) = sick.min() {
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
    use super::super::dereference::PodLifecycle;
    use super::super::origin::Origin;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn kept_unknown_pods_are_looked_at() {
        let agent = "{apiVersion: rota.dev/v1alpha1, kind: Agent, metadata: {name: coder, namespace: team},
            spec: {runtime: {scripted: {}}}}";
        let agent = serde_saphyr::from_str(agent).unwrap();
        let (state, pod) = (AgentState::default(), WorkerPod::default());
        let unknown = |lifecycle| [WorkerPod { origin: Origin::Unrecorded, lifecycle, ..pod.clone() }];
        for (unknown, expected) in [
            (unknown(PodLifecycle::Lost), JOIN_CHECK_INTERVAL),
            (unknown(PodLifecycle::Starting), JOIN_CHECK_INTERVAL),
            (unknown(PodLifecycle::Terminating), RESYNC_INTERVAL),
        ] {
            assert_eq!(after(&agent, &state, &[], &unknown, "hash"), expected, "{unknown:?}");
        }
    }
}
