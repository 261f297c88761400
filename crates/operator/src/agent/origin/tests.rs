//! Histories of pods that the operator has created, and of others that pass for them.

use rota_proto::v1::{Demand, IsolatedDemand, WorkerDemand};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::announce::{UnrecordedEnd, announced, unrecorded_end};
use super::super::demand::DemandSnapshot;
use super::super::dereference;
use super::super::history::{GIVE_UP_AFTER, GIVE_UP_BUSY_AFTER};
use super::super::state::AgentState;
use super::*;
use crate::WorkerOptions;
use crate::agent::PodSpecInput;
use crate::pods::WorkerPods;

/// Time of the first operator that records pods.
const RECORDED_SINCE: &str = "2030-01-01T00:00:00Z";
const BEFORE: &str = "2029-12-31T23:59:59Z";
const AFTER: &str = "2030-01-01T00:00:05Z";

/// A namespace with its pods, as a watch delivers them, and the agent `coder`.
struct Cluster {
    agent: Agent,
    pods: HashMap<String, Pod>,
    created: u32,
}

impl Cluster {
    fn new() -> Self {
        let agent = "{apiVersion: rota.dev/v1alpha1, kind: Agent, metadata: {name: coder, namespace: team, uid: agent-1},
            spec: {runtime: {scripted: {}}, slots: 2}}";
        Self { agent: serde_saphyr::from_str(agent).unwrap(), pods: HashMap::new(), created: 0 }
    }

    /// Creates a pod as the API server does: with a name, a UID and a date of its own, and without a status.
    fn create(&mut self, pod: &Pod, at: &str) -> Pod {
        self.created += 1;
        let mut pod = pod.clone();
        let name = pod.metadata.name.get_or_insert_with(|| format!("coder-{}", self.created)).clone();
        pod.metadata.uid = Some(format!("uid-{}", self.created));
        pod.metadata.creation_timestamp = Some(Time(at.parse().unwrap()));
        pod.status = None;
        self.pods.insert(name, pod.clone());
        pod
    }

    /// Creates a worker pod as the operator does.
    fn create_worker(&mut self, at: &str) -> Pod {
        let options = WorkerOptions::default();
        let pod = PodSpecInput { agent: &self.agent, options: &options, task: None }.pod().unwrap();
        self.create(&pod, at)
    }

    /// Writes records of creations, as far as the pods are still there.
    fn record(&mut self, creations: &mut Creations) {
        for creation in creations.unrecorded() {
            if let Some(pod) = self
                .pods
                .get_mut(&creation.name)
                .filter(|pod| pod.metadata.uid.as_ref() == Some(&creation.uid))
            {
                let condition = condition(&creation.labels, Timestamp::UNIX_EPOCH);
                pod.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
            }
            creations.recorded(&creation.uid);
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        change(self.pods.get_mut(name).unwrap());
    }

    /// Looks at the pods as a reconciliation does. Returns the names of those that are announced, and of those that are deleted.
    fn observe(&self, state: &mut AgentState, serving: &[&str]) -> (Vec<String>, Vec<String>) {
        let workers = serving.iter().map(|name| worker(name));
        let (announced, ends) = self.ends(state, reported(workers));
        let deleted = ends.into_iter().filter(|(_, end)| *end == UnrecordedEnd::Delete).map(|(name, _)| name);
        (announced, deleted.collect())
    }

    /// Looks at the pods as a reconciliation does. Returns the names of those that are announced, and how each of the unknown ones ends.
    fn ends(
        &self,
        state: &mut AgentState,
        demand: DemandSnapshot,
    ) -> (Vec<String>, Vec<(String, UnrecordedEnd)>) {
        let (pods, mut writer) = WorkerPods::new(None);
        for pod in self.pods.values() {
            pods.apply(&mut writer, pod.clone());
        }
        let known = (&state.creations, RECORDED_SINCE.parse().unwrap());
        let now = AFTER.parse().unwrap();
        let mut pods = dereference::worker_pods(&self.agent, &[pods], &demand, known, now);
        state.history.observe(&mut pods, Instant::now());
        let (own, unknown) = dereference::by_origin(pods);
        state.creations.retain(&own);
        let ends = unknown.iter().map(|pod| (pod.name.clone(), unrecorded_end(pod, &state.history)));
        let names =
            announced(state, &own).into_iter().map(|worker| format!("{}/{}", worker.worker, worker.instance));
        (names.collect(), ends.collect())
    }
}

/// Returns a connected worker as the control plane reports it.
fn worker(name: &str) -> WorkerDemand {
    let worker = format!("namespaces/team/workers/{name}");
    WorkerDemand { worker, connected: true, ..Default::default() }
}

fn reported(workers: impl IntoIterator<Item = WorkerDemand>) -> DemandSnapshot {
    let demand = Demand { workers: workers.into_iter().collect(), ..Default::default() };
    DemandSnapshot { demand, ..DemandSnapshot::default() }
}

fn none() -> Vec<String> {
    Vec::new()
}

#[tokio::test(start_paused = true)]
async fn created_pod_is_announced_once_recorded() {
    let (mut cluster, mut state) = (Cluster::new(), AgentState::default());
    let pod = cluster.create_worker(AFTER);
    state.creations.add(&pod);
    assert_eq!(cluster.observe(&mut state, &[]), (none(), none()), "the next operator would delete it");
    // The condition is written, and the watch is behind.
    let unrecorded = cluster.pods.clone();
    cluster.record(&mut state.creations);
    let recorded = std::mem::replace(&mut cluster.pods, unrecorded);
    assert_eq!(cluster.observe(&mut state, &[]).0, ["coder-1/uid-1"]);
    cluster.pods = recorded;
    assert_eq!(cluster.observe(&mut state, &[]).0, ["coder-1/uid-1"]);
    // After a restart, or with another leader.
    assert_eq!(
        cluster.observe(&mut AgentState::default(), &["coder-1"]),
        (vec!["coder-1/uid-1".into()], none())
    );
    // A node agent that loses conditions changes nothing for the operator that has created the pod.
    cluster.change("coder-1", |pod| pod.status = None);
    assert_eq!(cluster.observe(&mut state, &["coder-1"]).0, ["coder-1/uid-1"]);
}

#[tokio::test(start_paused = true)]
async fn pod_without_a_record_is_replaced() {
    let mut cluster = Cluster::new();
    // The operator ends between the creation and the record, or the answer to its call is lost.
    cluster.create_worker(AFTER);
    assert_eq!(cluster.observe(&mut AgentState::default(), &[]), (none(), vec!["coder-1".into()]));
    cluster.change("coder-1", |pod| pod.metadata.deletion_timestamp = Some(Time(AFTER.parse().unwrap())));
    assert_eq!(cluster.observe(&mut AgentState::default(), &[]), (none(), none()), "it ends");
}

#[tokio::test(start_paused = true)]
async fn worker_whose_record_was_dropped_is_drained() {
    let (mut cluster, mut state) = (Cluster::new(), AgentState::default());
    let pod = cluster.create_worker(AFTER);
    state.creations.add(&pod);
    cluster.record(&mut state.creations);
    // A virtual kubelet writes a status without the conditions of others, and the operator is started again.
    cluster.change("coder-1", |pod| pod.status = None);
    let mut state = AgentState::default();
    let mut ends = |demand: DemandSnapshot| {
        let (announced, ends) = cluster.ends(&mut state, demand);
        assert_eq!(announced, none());
        ends.into_iter().map(|(_, end)| end).collect::<Vec<_>>()
    };
    let busy = WorkerDemand { running: 2, ..worker("coder-1") };
    assert_eq!(ends(reported([busy.clone()])), [UnrecordedEnd::Drain]);
    let draining = WorkerDemand { draining: true, ..busy };
    assert_eq!(ends(reported([draining.clone()])), [UnrecordedEnd::None], "it finishes its tasks");
    let cut_off = WorkerDemand { connected: false, ..draining };
    assert_eq!(ends(reported([cut_off])), [UnrecordedEnd::None], "its session may resume");
    assert_eq!(ends(reported([])), [UnrecordedEnd::None], "it works without a session");
    // A pod of one task ends with that task.
    let isolated = IsolatedDemand { worker: "namespaces/team/workers/coder-1".into(), ..Default::default() };
    let demand = DemandSnapshot { isolated: vec![isolated], ..DemandSnapshot::default() };
    assert_eq!(ends(demand), [UnrecordedEnd::None]);
}

#[tokio::test(start_paused = true)]
async fn cut_off_worker_without_a_record_is_kept() {
    use UnrecordedEnd::{Delete, None as Keep};

    let running = |since: &str| json!({"running": {"startedAt": since}});
    let exited = json!({"terminated": {"exitCode": 0, "startedAt": BEFORE, "finishedAt": AFTER}});
    let long_ago = "2029-12-31T23:00:00Z";
    // Its container, how many tasks it had when it was connected, and how it ends: immediately, and when each time is over.
    for (container, tasks, expected) in [
        (running(AFTER), None, [Delete, Delete, Delete]),
        (running(long_ago), None, [Keep, Delete, Delete]),
        (running(AFTER), Some(0), [Keep, Delete, Delete]),
        (running(AFTER), Some(1), [Keep, Keep, Delete]),
        (exited, Some(1), [Delete, Delete, Delete]),
    ] {
        let (mut cluster, mut state) = (Cluster::new(), AgentState::default());
        cluster.create_worker(AFTER);
        let mut end = |cluster: &Cluster, workers: Vec<WorkerDemand>| {
            let (_, ends) = cluster.ends(&mut state, reported(workers));
            ends[0].1
        };
        if let Some(tasks) = tasks {
            cluster.change("coder-1", |pod| set_container(pod, running(AFTER)));
            let draining = WorkerDemand { running: tasks, draining: true, ..worker("coder-1") };
            assert_eq!(end(&cluster, vec![draining]), Keep);
        }
        let case = format!("{container} {tasks:?}");
        cluster.change("coder-1", |pod| set_container(pod, container));
        let mut ends = vec![end(&cluster, Vec::new())];
        for time in [GIVE_UP_AFTER, GIVE_UP_BUSY_AFTER] {
            tokio::time::advance(time).await;
            ends.push(end(&cluster, Vec::new()));
        }
        assert_eq!(ends, expected, "{case}");
    }
}

/// Sets the state of a worker's container.
fn set_container(pod: &mut Pod, state: Value) {
    let container = json!({
        "name": "worker", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state,
    });
    let status = json!({"phase": "Running", "containerStatuses": [container]});
    pod.status = Some(serde_json::from_value(status).unwrap());
}

#[tokio::test(start_paused = true)]
async fn copies_of_a_worker_pod_are_never_announced() {
    let (mut cluster, mut state) = (Cluster::new(), AgentState::default());
    let pod = cluster.create_worker(AFTER);
    state.creations.add(&pod);
    cluster.record(&mut state.creations);
    let original = cluster.pods["coder-1"].clone();
    // With its labels, its owner and its status, which the cluster drops.
    let named = |name: &str| {
        let mut copy = original.clone();
        copy.metadata.name = Some(name.into());
        copy
    };
    cluster.create(&named("copy"), AFTER);
    let mut orphan = named("orphan");
    orphan.metadata.owner_references = None;
    cluster.create(&orphan, AFTER);
    let expected = (vec!["coder-1/uid-1".to_owned()], vec!["copy".to_owned()]);
    assert_eq!(cluster.observe(&mut state, &[]), expected);
    assert_eq!(
        cluster.observe(&mut AgentState::default(), &[]),
        expected,
        "and pods of others are left alone"
    );
    // The worker's name is taken over, while the control plane still reports the worker of that name.
    cluster.pods.clear();
    cluster.create(&named("coder-1"), AFTER);
    for serving in [&["coder-1"][..], &[]] {
        assert_eq!(cluster.observe(&mut state, serving).0, none());
        assert_eq!(cluster.observe(&mut AgentState::default(), serving).0, none());
    }
    // Older than all records, and without an owner.
    cluster.pods.clear();
    cluster.create(&orphan, BEFORE);
    assert_eq!(cluster.observe(&mut AgentState::default(), &[]), (none(), none()));
}

#[tokio::test(start_paused = true)]
async fn changed_labels_void_the_record() {
    let label = |name: &'static str, value: &'static str| {
        move |pod: &mut Pod| {
            drop(pod.metadata.labels.get_or_insert_default().insert(name.into(), value.into()))
        }
    };
    for (name, value) in
        [("rota.dev/slots", "99"), ("rota.dev/task-uid", "other"), ("rota.dev/class", "blue")]
    {
        let (mut cluster, mut state) = (Cluster::new(), AgentState::default());
        let pod = cluster.create_worker(AFTER);
        state.creations.add(&pod);
        cluster.record(&mut state.creations);
        cluster.change("coder-1", label("team", "mine"));
        assert_eq!(
            cluster.observe(&mut state, &["coder-1"]).0,
            ["coder-1/uid-1"],
            "labels of users are theirs"
        );
        cluster.change("coder-1", label(name, value));
        for state in [&mut state, &mut AgentState::default()] {
            assert_eq!(
                cluster.observe(state, &["coder-1"]),
                (none(), none()),
                "{name}: it finishes its tasks"
            );
        }
    }
    // The pod of another agent is none of this one.
    let (mut cluster, mut state) = (Cluster::new(), AgentState::default());
    let pod = cluster.create_worker(AFTER);
    state.creations.add(&pod);
    cluster.record(&mut state.creations);
    cluster.change("coder-1", label("rota.dev/agent", "reviewer"));
    cluster.agent.metadata.name = Some("reviewer".into());
    cluster.agent.metadata.uid = Some("agent-2".into());
    assert_eq!(cluster.observe(&mut AgentState::default(), &[]), (none(), none()));
}

#[tokio::test(start_paused = true)]
async fn upgrade_keeps_the_pods_of_earlier_versions() {
    let (mut cluster, mut state) = (Cluster::new(), AgentState::default());
    cluster.create_worker(BEFORE);
    cluster.create_worker(BEFORE);
    let announced = vec!["coder-1/uid-1".to_owned(), "coder-2/uid-2".to_owned()];
    assert_eq!(
        cluster.observe(&mut state, &["coder-1"]),
        (announced.clone(), none()),
        "also one that starts"
    );
    assert_eq!(cluster.observe(&mut AgentState::default(), &[]), (announced, none()), "also after a restart");
    // Not one that is younger.
    cluster.create_worker(AFTER);
    assert_eq!(cluster.observe(&mut AgentState::default(), &[]).1, ["coder-3"]);
    // A task's own pod belongs to the task.
    let owned = |task: &str| -> Value {
        json!([{"apiVersion": "rota.dev/v1alpha1", "kind": "Task", "name": "t", "uid": task, "controller": true}])
    };
    for (owner, expected) in [("task-1", Origin::Operator), ("task-2", Origin::Foreign)] {
        let mut pod = cluster.pods["coder-1"].clone();
        pod.metadata.labels.get_or_insert_default().insert(TASK_UID.into(), "task-1".into());
        pod.metadata.owner_references = serde_json::from_value(owned(owner)).unwrap();
        let since = RECORDED_SINCE.parse().unwrap();
        assert_eq!(of(&pod, &cluster.agent, &Creations::default(), since), expected);
    }
}

#[test]
fn creations_are_forgotten_with_their_pods() {
    let (mut cluster, mut creations) = (Cluster::new(), Creations::default());
    for _ in 0..2 {
        creations.add(&cluster.create_worker(AFTER));
    }
    creations.retain(&[WorkerPod { uid: "uid-1".into(), ..WorkerPod::default() }]);
    let kept: Vec<_> = creations.unrecorded().into_iter().map(|creation| creation.uid).collect();
    assert_eq!(kept, ["uid-1"]);
    creations.forget("uid-1");
    assert!(creations.unrecorded().is_empty());
}
