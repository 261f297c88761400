//! Reads the state of a worker from its pod, by the container of the worker: pods may also have init containers and
//! sidecars, which the cluster sorts before it. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus};

use super::dereference::PodLifecycle;
use super::pod::CONTAINER_NAME;
use super::start_failure::StartFailure;

/// Time that a deleted pod may outlive its grace period before its node is taken for dead.
const DELETION_SLACK: SignedDuration = SignedDuration::from_secs(15);
/// Time within which a node acknowledges a pod that it was given, by its start time: a kubelet takes a few seconds, whatever
/// images it has to pull.
const MAX_UNSEEN: SignedDuration = SignedDuration::from_secs(60);
/// Lines of a worker's log in a message.
const LOG_LINES: usize = 5;
const MAX_LOG_BYTES: usize = 512;

/// State of a pod as its node last reported it.
pub(super) struct PodObservation<'a> {
    pod: &'a Pod,
    status: Option<&'a PodStatus>,
    worker: Option<&'a ContainerStatus>,
}

impl<'a> PodObservation<'a> {
    pub(super) fn new(pod: &'a Pod) -> Self {
        let status = pod.status.as_ref();
        let mut containers = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
        let worker = containers.find(|container| container.name == CONTAINER_NAME);
        Self { pod, status, worker }
    }

    /// Returns the lifecycle. `known` is whether the control plane reports the worker.
    pub(super) fn lifecycle(&self, known: bool) -> PodLifecycle {
        let phase = self.status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        match self.terminated() {
            _ if phase == "Failed" && self.is_evicted() => PodLifecycle::Failed,
            Some(terminated) if terminated.exit_code == 0 => PodLifecycle::Succeeded,
            Some(_) => PodLifecycle::Failed,
            None if phase == "Succeeded" => PodLifecycle::Succeeded,
            None if phase == "Failed" => PodLifecycle::Failed,
            None if self.pod.metadata.deletion_timestamp.is_some() => PodLifecycle::Terminating,
            None if known => PodLifecycle::Serving,
            None => PodLifecycle::Starting,
        }
    }

    /// Returns when the worker's container started.
    pub(super) fn began(&self) -> Option<Timestamp> {
        let state = self.worker?.state.as_ref()?;
        let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
        let terminated = state.terminated.as_ref().and_then(|terminated| terminated.started_at.as_ref());
        running.or(terminated).map(|time| time.0)
    }

    /// Returns when the worker's container ended; of a pod that ended before it began, when its last container did, or when
    /// the cluster last changed its state.
    pub(super) fn ended(&self) -> Option<Timestamp> {
        if let Some(terminated) = self.terminated() {
            return terminated.finished_at.as_ref().map(|time| time.0);
        }
        let status = self.status.filter(|status| status.phase.as_deref() == Some("Failed"))?;
        let init = status.init_container_statuses.iter().flatten();
        let containers = init.chain(status.container_statuses.iter().flatten());
        let finished = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref());
        let finished = finished.filter_map(|terminated| terminated.finished_at.as_ref());
        let conditions = status.conditions.iter().flatten();
        let changed = conditions.filter_map(|condition| condition.last_transition_time.as_ref());
        let created = self.pod.metadata.creation_timestamp.as_ref();
        finished.max().or(changed.max()).or(created).map(|time| time.0)
    }

    /// Returns whether the pod's node does not respond, or the pod has outlived its grace period.
    pub(super) fn is_unreachable(&self, now: Timestamp) -> bool {
        // The node controller sets this condition alone; a node that responds sets both together.
        let node_lost = self.condition("Ready", "False").is_some_and(|ready| ready.reason.is_none())
            && self.condition("ContainersReady", "True").is_some();
        // The node controller reports nothing of a pod that was given to a node as it died: its conditions are all the same.
        let given =
            self.condition("PodScheduled", "True").and_then(|given| given.last_transition_time.as_ref());
        let unseen = self.status.is_some_and(|status| status.start_time.is_none())
            && given.is_some_and(|given| now.duration_since(given.0) > MAX_UNSEEN);
        let deadline = self.pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        node_lost || unseen || deadline.is_some_and(|deadline| now.duration_since(deadline) > DELETION_SLACK)
    }

    /// Returns whether the cluster ended the pod for its own reasons.
    pub(super) fn is_disrupted(&self) -> bool {
        self.condition("DisruptionTarget", "True").is_some()
    }

    /// Returns whether the node ended the pod for lack of disk, memory or processes, which may be the pod's own use.
    pub(super) fn is_under_pressure(&self) -> bool {
        self.is_evicted()
    }

    /// Returns why the pod does not start, or how it failed: what a user would look for in `kubectl describe`.
    pub(super) fn start_failure(&self) -> Option<StartFailure> {
        let status = self.status?;
        let has_ended = matches!(self.lifecycle(false), PodLifecycle::Failed);
        let disruption = self.condition("DisruptionTarget", "True").filter(|_| has_ended);
        // The cause comes before its effect, which is a container that was killed.
        if has_ended && self.is_evicted() {
            return Some(failure(status.reason.as_deref(), "Evicted", status.message.as_deref()));
        }
        if let Some(disruption) = disruption {
            return Some(failure(disruption.reason.as_deref(), "Disrupted", disruption.message.as_deref()));
        }
        if let Some(terminated) = self.terminated().filter(|terminated| terminated.exit_code != 0) {
            return Some(self.exit_failure(terminated));
        }
        if let Some(failure) = self.other_container_failure(status) {
            return Some(failure);
        }
        if status.phase.as_deref() == Some("Failed") {
            return Some(failure(status.reason.as_deref(), "Failed", status.message.as_deref()));
        }
        let unscheduled = self.condition("PodScheduled", "False")?;
        Some(failure(unscheduled.reason.as_deref(), "Unscheduled", unscheduled.message.as_deref()))
    }

    /// Returns the failure of an init container or a sidecar, or of a container whose image cannot be pulled.
    fn other_container_failure(&self, status: &PodStatus) -> Option<StartFailure> {
        let init = status.init_container_statuses.iter().flatten();
        for container in init.clone() {
            let terminated = container.state.as_ref().and_then(|state| state.terminated.as_ref());
            if let Some(terminated) = terminated.filter(|terminated| terminated.exit_code != 0) {
                let message = format!(
                    "init container {} exited with code {}: {}",
                    container.name,
                    terminated.exit_code,
                    log_end(terminated)
                );
                return Some(StartFailure::new("InitContainerFailed", message));
            }
        }
        let mut containers =
            self.worker.into_iter().chain(init).chain(status.container_statuses.iter().flatten());
        // A container that is being created is starting, not failing.
        containers.find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            if matches!(reason, "ContainerCreating" | "PodInitializing") {
                return None;
            }
            let message = waiting.message.clone().unwrap_or_default();
            let message = match container.name.as_str() {
                CONTAINER_NAME => message,
                name => format!("container {name}: {message}"),
            };
            Some(StartFailure::new(reason, message))
        })
    }

    fn exit_failure(&self, terminated: &ContainerStateTerminated) -> StartFailure {
        let reason = terminated.reason.as_deref().unwrap_or("Error");
        let cause = match (reason, self.memory_limit()) {
            ("OOMKilled", Some(limit)) => format!(" (OOMKilled, memory limit {limit})"),
            ("Error", _) => String::new(),
            _ => format!(" ({reason})"),
        };
        let log = log_end(terminated);
        let separator = if log.is_empty() { "" } else { ": " };
        let message = format!("the worker exited with code {}{cause}{separator}{log}", terminated.exit_code);
        StartFailure::new(reason, message)
    }

    fn memory_limit(&self) -> Option<&'a str> {
        let containers = self.pod.spec.as_ref()?.containers.iter();
        let worker = containers.into_iter().find(|container| container.name == CONTAINER_NAME)?;
        Some(worker.resources.as_ref()?.limits.as_ref()?.get("memory")?.0.as_str())
    }

    fn terminated(&self) -> Option<&'a ContainerStateTerminated> {
        self.worker?.state.as_ref()?.terminated.as_ref()
    }

    fn is_evicted(&self) -> bool {
        self.status.and_then(|status| status.reason.as_deref()) == Some("Evicted")
    }

    fn condition(&self, type_: &str, status: &str) -> Option<&'a PodCondition> {
        let mut conditions = self.status?.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == type_ && condition.status == status)
    }
}

fn failure(reason: Option<&str>, default: &str, message: Option<&str>) -> StartFailure {
    StartFailure::new(reason.unwrap_or(default), message.unwrap_or_default())
}

/// Returns the last lines of a container's log, which the cluster puts into its termination message.
fn log_end(terminated: &ContainerStateTerminated) -> String {
    let log = terminated.message.as_deref().unwrap_or_default();
    let lines: Vec<_> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ");
    let mut from = text.len().saturating_sub(MAX_LOG_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        let limits = json!({"limits": {"memory": "512Mi"}});
        let containers = json!([{"name": "proxy"}, {"name": "worker", "resources": limits}]);
        serde_json::from_value(json!({"spec": {"containers": containers}, "status": status})).unwrap()
    }

    fn exited(code: i32, reason: &str, log: &str) -> Value {
        json!({"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {
            "exitCode": code, "reason": reason, "message": log,
            "startedAt": "2030-01-01T00:00:00Z", "finishedAt": "2030-01-01T00:00:09Z",
        }}})
    }

    fn container(name: &str, state: Value) -> Value {
        json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state})
    }

    fn failure_of(pod: &Pod) -> (String, String) {
        let failure = PodObservation::new(pod).start_failure().unwrap();
        (failure.reason, failure.message)
    }

    #[test]
    fn pods_that_never_began_have_an_end() {
        let ended = |status: Value| PodObservation::new(&pod(status)).ended().map(|time| time.to_string());
        let init = container(
            "clone",
            json!({"terminated": {
                "exitCode": 1, "startedAt": "2030-01-01T00:00:00Z", "finishedAt": "2030-01-01T00:00:07Z",
            }}),
        );
        let waiting = container("worker", json!({"waiting": {"reason": "PodInitializing"}}));
        let failed = json!({
            "phase": "Failed", "initContainerStatuses": [init], "containerStatuses": [waiting],
        });
        assert_eq!(ended(failed).as_deref(), Some("2030-01-01T00:00:07Z"));
        // The node refused it.
        let scheduled =
            json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2030-01-01T00:00:03Z"});
        let refused = json!({"phase": "Failed", "reason": "OutOfcpu", "conditions": [scheduled]});
        assert_eq!(ended(refused.clone()).as_deref(), Some("2030-01-01T00:00:03Z"));
        let pending = json!({"phase": "Pending", "conditions": refused["conditions"]});
        assert_eq!(ended(pending), None);
    }

    #[test]
    fn worker_exit_ends_pod_with_sidecar() {
        let proxy = container("proxy", json!({"running": {}}));
        let drained =
            pod(json!({"phase": "Running", "containerStatuses": [proxy, exited(0, "Completed", "")]}));
        let observed = PodObservation::new(&drained);
        assert_eq!(observed.lifecycle(false), PodLifecycle::Succeeded);
        assert_eq!(observed.ended().unwrap().duration_since(observed.began().unwrap()).as_secs(), 9);
        // The proxy is killed with the pod, which is no failure of the worker.
        let killed = container("proxy", json!({"terminated": {"exitCode": 143}}));
        let ended =
            pod(json!({"phase": "Failed", "containerStatuses": [killed, exited(0, "Completed", "")]}));
        assert_eq!(PodObservation::new(&ended).lifecycle(false), PodLifecycle::Succeeded);
        assert_eq!(
            PodObservation::new(&ended).start_failure().map(|failure| failure.reason),
            Some("Failed".into())
        );
    }

    #[test]
    fn memory_kill_names_its_limit() {
        let proxy = container("proxy", json!({"running": {}}));
        let killed =
            pod(json!({"phase": "Running", "containerStatuses": [proxy, exited(137, "OOMKilled", "")]}));
        assert_eq!(PodObservation::new(&killed).lifecycle(true), PodLifecycle::Failed);
        let message = "the worker exited with code 137 (OOMKilled, memory limit 512Mi)";
        assert_eq!(failure_of(&killed), ("OOMKilled".into(), message.into()));
    }

    #[test]
    fn eviction_is_the_cause_of_a_kill() {
        let evicted = pod(json!({
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage.",
            "containerStatuses": [exited(137, "Error", "")],
        }));
        assert_eq!(
            failure_of(&evicted),
            ("Evicted".into(), "The node was low on resource: ephemeral-storage.".into())
        );
        assert!(PodObservation::new(&evicted).is_under_pressure());
        let preempted = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": "preempting to accommodate a higher priority pod"});
        let preempted = pod(json!({
            "phase": "Failed", "conditions": [preempted], "containerStatuses": [exited(143, "Error", "")],
        }));
        let observed = PodObservation::new(&preempted);
        assert!(observed.is_disrupted() && !observed.is_under_pressure());
        assert_eq!(failure_of(&preempted).0, "PreemptionByScheduler");
    }

    #[test]
    fn log_end_is_bounded() {
        let log = format!("first\n{}\n\nlast é", "x".repeat(4000));
        let failed = pod(json!({"phase": "Failed", "containerStatuses": [exited(1, "Error", &log)]}));
        let (reason, message) = failure_of(&failed);
        assert_eq!(reason, "Error");
        assert!(message.len() < 600 && message.ends_with("x | last é"), "{message}");
    }

    #[test]
    fn init_and_sidecar_failures_are_named() {
        let init =
            container("clone", json!({"terminated": {"exitCode": 128, "message": "fatal: not found"}}));
        let failed = pod(json!({"phase": "Failed", "initContainerStatuses": [init]}));
        let message = "init container clone exited with code 128: fatal: not found";
        assert_eq!(failure_of(&failed), ("InitContainerFailed".into(), message.into()));
        let waiting = container("proxy", json!({"waiting": {"reason": "ErrImagePull", "message": "no"}}));
        let creating = container("worker", json!({"waiting": {"reason": "PodInitializing"}}));
        let stuck = pod(json!({"phase": "Pending", "containerStatuses": [waiting, creating]}));
        assert_eq!(failure_of(&stuck), ("ErrImagePull".into(), "container proxy: no".into()));
    }

    #[test]
    fn dead_node_makes_pods_unreachable() {
        let now: Timestamp = "2030-01-01T01:00:00Z".parse().unwrap();
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status});
        let conditions = json!([condition("Ready", "False"), condition("ContainersReady", "True")]);
        let lost = pod(json!({"phase": "Running", "conditions": conditions}));
        assert!(PodObservation::new(&lost).is_unreachable(now));
        let conditions = json!([condition("Ready", "True"), condition("ContainersReady", "True")]);
        let mut healthy = pod(json!({"phase": "Running", "conditions": conditions}));
        assert!(!PodObservation::new(&healthy).is_unreachable(now));
        let given =
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2030-01-01T00:58:30Z"}]);
        let unseen = pod(json!({"phase": "Pending", "conditions": given}));
        assert!(PodObservation::new(&unseen).is_unreachable(now), "the node never acknowledged it");
        let seen = json!({"phase": "Pending", "conditions": given, "startTime": "2030-01-01T00:58:31Z"});
        assert!(!PodObservation::new(&pod(seen)).is_unreachable(now), "it pulls an image");
        let early: Timestamp = "2030-01-01T00:59:20Z".parse().unwrap();
        assert!(!PodObservation::new(&unseen).is_unreachable(early));
        // The timestamp of a deletion includes its grace period.
        let deleted = |at: &str| serde_json::from_value(json!(at)).unwrap();
        healthy.metadata.deletion_timestamp = Some(deleted("2030-01-01T00:59:50Z"));
        assert!(!PodObservation::new(&healthy).is_unreachable(now));
        healthy.metadata.deletion_timestamp = Some(deleted("2030-01-01T00:59:00Z"));
        assert!(PodObservation::new(&healthy).is_unreachable(now));
    }
}
