//! What is remembered of an agent's pods between reconciliations: which have joined, since when a running one is absent
//! from the control plane, and whose end was handled. Knows no cluster and no API.

use std::collections::HashMap;
use std::time::Duration;

use rota_core::scaling::STABLE_AFTER;
use tokio::time::Instant;

use super::dereference::{PodLifecycle, WorkerPod};
use super::start_failure::StartFailure;

/// Absence after which a worker that had joined is no capacity any more. Sessions resume within seconds, also after a
/// restart of the control plane.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Absence after which a running worker is given up and its pod deleted. Longer than the control plane's recovery
/// grace, so that a worker whose attempt may still resume is left alone.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(150);

/// Memory of an agent's pods, by UID. After a restart of the operator, absence counts from the first observation.
#[derive(Debug, Default)]
pub(super) struct PodHistory(HashMap<String, PodRecord>);

#[derive(Debug, Default)]
struct PodRecord {
    has_joined: bool,
    absent_since: Option<Instant>,
    end_handled: bool,
    death_reported: bool,
}

impl PodHistory {
    /// Completes the lifecycle of pods with what is remembered of them. Returns the indexes of those whose
    /// workers have joined since the last call.
    pub(super) fn observe(&mut self, pods: &mut [WorkerPod], now: Instant) -> Vec<usize> {
        self.0.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
        let mut joined = Vec::new();
        for (index, pod) in pods.iter_mut().enumerate() {
            let record = self.0.entry(pod.uid.clone()).or_default();
            match pod.lifecycle {
                PodLifecycle::Serving => {
                    record.absent_since = None;
                    if !std::mem::replace(&mut record.has_joined, true) {
                        joined.push(index);
                    }
                }
                PodLifecycle::Starting => pod.lifecycle = record.absent(pod, now),
                _ => {}
            }
        }
        joined
    }

    /// Restarts the clocks of absent workers: while the control plane does not respond, no worker can connect.
    pub(super) fn control_plane_unavailable(&mut self) {
        for record in self.0.values_mut() {
            record.absent_since = None;
        }
    }

    /// Returns whether a worker has ever joined, as far as this operator knows.
    pub(super) fn has_joined(&self, pod: &WorkerPod) -> bool {
        self.0.get(&pod.uid).is_some_and(|record| record.has_joined)
    }

    /// Returns the failure of a pod that has ended or is given up, once per pod.
    pub(super) fn take_failure(&mut self, pod: &WorkerPod, endpoint: &str) -> Option<StartFailure> {
        let record = self.0.entry(pod.uid.clone()).or_default();
        // A pod that was deleted before its worker connected was ended on purpose; an isolated worker ends with its task.
        let was_ended = pod.is_deleted || pod.task_is_over;
        let was_stable = pod.ran_for.is_some_and(|ran_for| ran_for >= STABLE_AFTER);
        let failure = match pod.lifecycle {
            PodLifecycle::Failed if pod.is_deleted && !record.has_joined => return None,
            PodLifecycle::Failed => {
                pod.start_failure.clone().unwrap_or_else(|| StartFailure::new("Failed", "the pod failed"))
            }
            PodLifecycle::Succeeded if !record.has_joined && !was_ended && !was_stable => {
                StartFailure::new("WorkerExited", "the worker exited with code 0 before it connected")
            }
            PodLifecycle::Unresponsive if record.has_joined => StartFailure::new(
                "WorkerLost",
                "the worker runs, but is not connected to the control plane any more; its pod is replaced",
            ),
            PodLifecycle::Unresponsive => StartFailure::new(
                "WorkersNotConnecting",
                format!(
                    "the worker runs, but does not connect to {endpoint}: check network policies, DNS and proxies \
                     between them, and its log"
                ),
            ),
            _ => return None,
        };
        let first = !std::mem::replace(&mut record.end_handled, true);
        first.then_some(failure)
    }

    pub(super) fn death_reported(&mut self, pod: &WorkerPod) {
        self.0.entry(pod.uid.clone()).or_default().death_reported = true;
    }

    /// Returns whether the control plane is still to be informed of a worker's death.
    pub(super) fn death_report_due(&self, pod: &WorkerPod) -> bool {
        pod.has_terminated() && self.0.get(&pod.uid).is_none_or(|record| !record.death_reported)
    }
}

impl PodRecord {
    /// Returns the lifecycle of a pod whose worker is not connected.
    fn absent(&mut self, pod: &WorkerPod, now: Instant) -> PodLifecycle {
        // Before its container runs, a worker waits for a node or an image.
        let absent = match pod.ran_for {
            Some(_) => now - *self.absent_since.get_or_insert(now),
            None => Duration::ZERO,
        };
        match self.has_joined {
            _ if absent >= GIVE_UP_AFTER => PodLifecycle::Unresponsive,
            _ if pod.is_unreachable => PodLifecycle::Lost,
            true if absent >= LOST_AFTER => PodLifecycle::Lost,
            true => PodLifecycle::Serving,
            false => PodLifecycle::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pod(lifecycle: PodLifecycle) -> WorkerPod {
        let ran_for = Some(SECOND);
        WorkerPod { uid: "u".into(), hash: "h".into(), lifecycle, ran_for, ..WorkerPod::default() }
    }

    /// Observes one pod, and returns its lifecycle.
    fn observe(history: &mut PodHistory, pod: &WorkerPod, now: Instant) -> PodLifecycle {
        let mut pods = [pod.clone()];
        history.observe(&mut pods, now);
        pods[0].lifecycle
    }

    #[tokio::test(start_paused = true)]
    async fn joined_worker_is_lost_after_absence() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        assert_eq!(history.observe(&mut [pod(PodLifecycle::Serving)], now), [0]);
        assert_eq!(history.observe(&mut [pod(PodLifecycle::Serving)], now), [0; 0], "it had joined");
        let absent = pod(PodLifecycle::Starting);
        assert_eq!(observe(&mut history, &absent, now), PodLifecycle::Serving, "it may reconnect");
        assert_eq!(observe(&mut history, &absent, now + LOST_AFTER), PodLifecycle::Lost);
        assert_eq!(observe(&mut history, &absent, now + GIVE_UP_AFTER), PodLifecycle::Unresponsive);
        // It came back, and its clock starts again.
        assert_eq!(observe(&mut history, &pod(PodLifecycle::Serving), now), PodLifecycle::Serving);
        assert_eq!(observe(&mut history, &absent, now + GIVE_UP_AFTER), PodLifecycle::Serving);
    }

    #[tokio::test(start_paused = true)]
    async fn worker_on_dead_node_is_lost_immediately() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        observe(&mut history, &pod(PodLifecycle::Serving), now);
        let unreachable = WorkerPod { is_unreachable: true, ..pod(PodLifecycle::Starting) };
        assert_eq!(observe(&mut history, &unreachable, now), PodLifecycle::Lost);
        let connected = WorkerPod { is_unreachable: true, ..pod(PodLifecycle::Serving) };
        assert_eq!(observe(&mut history, &connected, now), PodLifecycle::Serving);
    }

    #[tokio::test(start_paused = true)]
    async fn never_connected_worker_is_given_up_once() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        let pending = WorkerPod { ran_for: None, ..pod(PodLifecycle::Starting) };
        assert_eq!(observe(&mut history, &pending, now), PodLifecycle::Starting);
        assert_eq!(observe(&mut history, &pending, now + 9 * GIVE_UP_AFTER), PodLifecycle::Starting);
        // Its container runs from now on.
        let running = pod(PodLifecycle::Starting);
        let now = now + 9 * GIVE_UP_AFTER;
        assert_eq!(observe(&mut history, &running, now), PodLifecycle::Starting);
        assert_eq!(observe(&mut history, &running, now + GIVE_UP_AFTER), PodLifecycle::Unresponsive);
        let given_up = pod(PodLifecycle::Unresponsive);
        let failure = history.take_failure(&given_up, "https://rota:7420").unwrap();
        assert_eq!(failure.reason, "WorkersNotConnecting");
        assert!(failure.message.contains("https://rota:7420"));
        assert_eq!(history.take_failure(&given_up, ""), None);
    }

    #[tokio::test(start_paused = true)]
    async fn absence_does_not_count_during_an_outage() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        let running = pod(PodLifecycle::Starting);
        observe(&mut history, &running, now);
        history.control_plane_unavailable();
        let later = now + GIVE_UP_AFTER;
        assert_eq!(observe(&mut history, &running, later), PodLifecycle::Starting);
        assert_eq!(observe(&mut history, &running, later + GIVE_UP_AFTER), PodLifecycle::Unresponsive);
    }

    #[tokio::test(start_paused = true)]
    async fn exit_before_connecting_is_a_failure() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        let exited = pod(PodLifecycle::Succeeded);
        observe(&mut history, &exited, now);
        assert_eq!(history.take_failure(&exited, "").unwrap().reason, "WorkerExited");
        assert!(history.death_report_due(&exited));
        history.death_reported(&exited);
        assert!(!history.death_report_due(&exited));
        // Withdrawn before it connected, or drained while no operator watched.
        for ended in [
            WorkerPod { uid: "v".into(), is_deleted: true, ..exited.clone() },
            WorkerPod { uid: "w".into(), is_deleted: true, ..pod(PodLifecycle::Failed) },
            WorkerPod { uid: "x".into(), ran_for: Some(STABLE_AFTER), ..exited.clone() },
            WorkerPod { uid: "y".into(), task_is_over: true, ..exited.clone() },
        ] {
            assert_eq!(history.take_failure(&ended, ""), None, "{ended:?}");
        }
        let mut drained = PodHistory::default();
        observe(&mut drained, &pod(PodLifecycle::Serving), now);
        assert_eq!(drained.take_failure(&exited, ""), None);
    }
}
