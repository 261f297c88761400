//! What is remembered of an agent's pods between reconciliations: which have joined, since when a running one is absent
//! from the control plane, and whose end was handled. Knows no cluster and no API.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::dereference::{PodLifecycle, WorkerPod};
use super::origin::Origin;
use super::start_failure::StartFailure;

/// Absence after which a worker that had joined is no capacity any more. Sessions resume within seconds, also after a
/// restart of the control plane.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Absence after which a running worker is given up and its pod deleted, unless its work may still count. Longer than the
/// control plane's recovery grace.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(150);
/// Absence after which a worker is given up whatever it may run: longer than the orphan timeout of worker pods, at which
/// it should have ended by itself.
pub(super) const GIVE_UP_BUSY_AFTER: Duration = Duration::from_secs(130 * 60);

/// Memory of an agent's pods, by UID. After a restart of the operator, absence counts from the first observation.
#[derive(Debug, Default)]
pub(super) struct PodHistory(HashMap<String, PodRecord>);

#[derive(Debug, Default)]
struct PodRecord {
    has_joined: bool,
    /// Whether the worker had tasks when it was last connected, or may have: attempts go on without a connection, and
    /// count once it is back.
    may_run_tasks: bool,
    /// Whether the worker was draining when it was last connected: its absence is its end.
    was_draining: bool,
    absent_since: Option<Instant>,
    end_handled: bool,
    death_reported: bool,
}

impl PodHistory {
    /// Completes the lifecycle of pods with what is remembered of them. Returns the indexes of those whose
    /// workers have joined since the last call.
    pub(super) fn observe(&mut self, pods: &mut [WorkerPod], now: Instant) -> Vec<usize> {
        let uids: HashSet<_> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.0.retain(|uid, _| uids.contains(uid.as_str()));
        let mut joined = Vec::new();
        for (index, pod) in pods.iter_mut().enumerate() {
            let record = self.0.entry(pod.uid.clone()).or_insert_with(|| PodRecord {
                // The operator may have been started during an outage of the network. A pod without a record was never announced, as
                // far as anything shows.
                may_run_tasks: pod.origin == Origin::Operator && pod.was_stable(),
                ..PodRecord::default()
            });
            match pod.lifecycle {
                PodLifecycle::Serving => {
                    record.absent_since = None;
                    record.may_run_tasks = pod.worker.as_ref().is_none_or(|worker| worker.running > 0);
                    record.was_draining = pod.worker.as_ref().is_some_and(|worker| worker.draining);
                    if !std::mem::replace(&mut record.has_joined, true) {
                        joined.push(index);
                    }
                }
                PodLifecycle::Starting => pod.lifecycle = record.absent(pod, now),
                _ => {}
            }
        }
        self.spare_the_busy(pods, now);
        joined
    }

    /// Takes back which workers are given up if they may run tasks. While no worker of the agent is connected, the network is
    /// the cause, and their work would be lost for nothing. Otherwise at most a quarter is given up at a time. Pods without a record
    /// do not count: other users may have created them.
    fn spare_the_busy(&self, pods: &mut [WorkerPod], now: Instant) {
        let own = pods.iter().filter(|pod| pod.origin == Origin::Operator);
        let present = own.clone().filter(|pod| !pod.has_terminated());
        let ending = present.clone().filter(|pod| pod.lifecycle == PodLifecycle::Terminating).count();
        let mut room = match own.clone().any(is_connected) {
            true => present.count().div_ceil(4).saturating_sub(ending),
            false => 0,
        };
        let given_up = pods.iter_mut().filter(|pod| pod.lifecycle == PodLifecycle::Unresponsive);
        for pod in given_up.filter(|pod| !pod.is_unreachable && self.may_run_tasks(pod)) {
            let since = self.0.get(&pod.uid).and_then(|record| record.absent_since).unwrap_or(now);
            if now - since >= GIVE_UP_BUSY_AFTER {
                continue;
            }
            match room {
                0 => pod.lifecycle = PodLifecycle::Lost,
                _ => room -= 1,
            }
        }
    }

    /// Returns whether a worker that is not connected may run tasks all the same.
    pub(super) fn may_run_tasks(&self, pod: &WorkerPod) -> bool {
        self.0.get(&pod.uid).is_some_and(|record| record.may_run_tasks)
    }

    /// Returns why an agent has no worker although some run: all have lost their connection.
    pub(super) fn disconnected(&self, pods: &[WorkerPod], endpoint: &str) -> Option<StartFailure> {
        let lost = pods.iter().any(|pod| pod.lifecycle == PodLifecycle::Lost && self.may_run_tasks(pod));
        let message = format!(
            "workers run, but have lost their connection to {endpoint}: check network policies, DNS and proxies \
             between them; their tasks go on, and count once they are back"
        );
        (lost && !pods.iter().any(is_connected)).then(|| StartFailure::new("WorkersDisconnected", message))
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
        let failure = match pod.lifecycle {
            PodLifecycle::Failed if pod.is_deleted && !record.has_joined => return None,
            PodLifecycle::Failed => {
                pod.start_failure.clone().unwrap_or_else(|| StartFailure::new("Failed", "the pod failed"))
            }
            PodLifecycle::Succeeded if !record.has_joined && !was_ended && !pod.was_stable() => {
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

/// Returns whether the control plane has a session of a worker. Those of isolated tasks are reported by their task.
fn is_connected(pod: &WorkerPod) -> bool {
    let connected = pod.worker.as_ref().map_or(pod.task.is_some(), |worker| worker.connected);
    pod.lifecycle == PodLifecycle::Serving && connected
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
            true if self.was_draining => PodLifecycle::Terminating,
            true => PodLifecycle::Serving,
            false => PodLifecycle::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_core::scaling::STABLE_AFTER;
    use rota_proto::v1;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pod(lifecycle: PodLifecycle) -> WorkerPod {
        let (origin, ran_for) = (Origin::Operator, Some(SECOND));
        WorkerPod { uid: "u".into(), origin, hash: "h".into(), lifecycle, ran_for, ..WorkerPod::default() }
    }

    /// Returns a pod whose worker is connected and runs this many tasks.
    fn connected(uid: &str, running: i32) -> WorkerPod {
        let worker = v1::WorkerDemand { connected: true, running, ..Default::default() };
        WorkerPod { uid: uid.into(), worker: Some(worker), ..pod(PodLifecycle::Serving) }
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
        observe(&mut history, &connected("u", 0), now);
        assert_eq!(observe(&mut history, &absent, now), PodLifecycle::Serving, "it may reconnect");
        assert_eq!(observe(&mut history, &absent, now + LOST_AFTER), PodLifecycle::Lost);
        assert_eq!(observe(&mut history, &absent, now + GIVE_UP_AFTER), PodLifecycle::Unresponsive);
        // It came back, and its clock starts again.
        assert_eq!(observe(&mut history, &connected("u", 0), now), PodLifecycle::Serving);
        assert_eq!(observe(&mut history, &absent, now + GIVE_UP_AFTER), PodLifecycle::Serving);
    }

    #[tokio::test(start_paused = true)]
    async fn drained_worker_that_left_is_terminating() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        let mut draining = connected("u", 1);
        draining.worker.as_mut().unwrap().draining = true;
        observe(&mut history, &draining, now);
        let left = pod(PodLifecycle::Starting);
        assert_eq!(observe(&mut history, &left, now), PodLifecycle::Terminating);
        assert_eq!(observe(&mut history, &left, now + GIVE_UP_AFTER), PodLifecycle::Lost, "it ran a task");
        // A newer request may have taken the drain back.
        observe(&mut history, &connected("u", 1), now);
        assert_eq!(observe(&mut history, &left, now), PodLifecycle::Serving);
    }

    #[tokio::test(start_paused = true)]
    async fn work_survives_a_cut_network() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        let absent = |uid: &str| WorkerPod { uid: uid.into(), ..pod(PodLifecycle::Starting) };
        let names = ["a", "b", "c", "d", "e"];
        let given_up = |history: &mut PodHistory, mut pods: Vec<WorkerPod>, now: Instant| {
            history.observe(&mut pods, now);
            pods.into_iter().filter(|pod| pod.lifecycle == PodLifecycle::Unresponsive).count()
        };
        history.observe(&mut names.map(|name| connected(name, 1)), now);
        assert_eq!(given_up(&mut history, names.map(absent).into(), now), 0);
        let all = || names.map(absent).to_vec();
        assert_eq!(given_up(&mut history, all(), now + GIVE_UP_AFTER), 0, "the network was cut");
        let cut = [WorkerPod { lifecycle: PodLifecycle::Lost, ..absent("a") }];
        let failure = history.disconnected(&cut, "https://rota:7420").unwrap();
        assert_eq!(failure.reason, "WorkersDisconnected");
        // Another one is connected: these five have a problem of their own. Two of six are no more than a quarter at a time.
        let with_new = || [all(), vec![connected("f", 0)]].concat();
        assert_eq!(given_up(&mut history, with_new(), now + GIVE_UP_AFTER), 2);
        let ending = WorkerPod { lifecycle: PodLifecycle::Terminating, is_deleted: true, ..absent("a") };
        let one_ends = [vec![ending], with_new()[1..].to_vec()].concat();
        assert_eq!(given_up(&mut history, one_ends, now + GIVE_UP_AFTER), 1);
        // What others create next to them changes nothing.
        let forged = |lifecycle| WorkerPod { origin: Origin::Unrecorded, lifecycle, ..absent("g") };
        for lifecycle in [PodLifecycle::Terminating, PodLifecycle::Starting] {
            let others = (0..9).map(|number| WorkerPod { uid: format!("g{number}"), ..forged(lifecycle) });
            let pods = others.chain(with_new()).collect();
            assert_eq!(given_up(&mut history, pods, now + GIVE_UP_AFTER), 2, "{lifecycle:?}");
        }
        assert_eq!(history.disconnected(&with_new(), ""), None);
        // Dead nodes, idle workers, and those that should have ended by themselves are not waited for.
        let dead = all().into_iter().map(|pod| WorkerPod { is_unreachable: true, ..pod }).collect();
        assert_eq!(given_up(&mut history, dead, now + GIVE_UP_AFTER), 5);
        assert_eq!(given_up(&mut history, all(), now + GIVE_UP_BUSY_AFTER), 5);
        history.observe(&mut names.map(|name| connected(name, 0)), now);
        assert_eq!(given_up(&mut history, all(), now), 0);
        assert_eq!(given_up(&mut history, all(), now + GIVE_UP_AFTER), 5, "they ran nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn restarted_operator_spares_running_workers() {
        let (mut history, now) = (PodHistory::default(), Instant::now());
        let unknown = WorkerPod { ran_for: Some(STABLE_AFTER), ..pod(PodLifecycle::Starting) };
        observe(&mut history, &unknown, now);
        assert_eq!(observe(&mut history, &unknown, now + GIVE_UP_AFTER), PodLifecycle::Lost);
        assert!(history.may_run_tasks(&unknown));
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
