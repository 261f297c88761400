//! An operator that ends, or that the API server refuses, between the creation of two pods, or whose watch of pods is cut off.

use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use rota_proto::v1;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::super::Parts;
use super::super::announce::{UnrecordedEnd, announced, unrecorded_end};
use super::super::build;
use super::super::demand::DemandSnapshot;
use super::super::dereference::{self, PodLifecycle};
use super::*;
use crate::context::tests::{api_server, context};
use crate::controller::Reconciler;
use crate::kind::Guarded;
use crate::pods::WorkerPods;

const HASH: &str = "hash";

/// API server that keeps pods as a cluster does.
#[derive(Default)]
struct ApiServer {
    pods: Mutex<Vec<Value>>,
    /// Number of pods from which on creations are not answered.
    answers: usize,
    /// Notified of the first creation that is not answered.
    silent: Notify,
    /// Whether another user deletes each pod immediately.
    deletes: bool,
    /// With which status the creation of pods cannot be recorded.
    refuses_records: Mutex<Option<StatusCode>>,
}

impl ApiServer {
    fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        api_server(move |method, path, sent| {
            let server = Arc::clone(&server);
            async move {
                match method {
                    Method::POST => (StatusCode::CREATED, server.create(sent).await),
                    Method::PATCH => server.record(&path, &sent),
                    Method::GET => (StatusCode::OK, server.list()),
                    Method::DELETE => server.delete(&path),
                    method => panic!("{method} {path}"),
                }
            }
        })
    }

    async fn create(&self, mut pod: Value) -> Value {
        let number = self.pods.lock().len();
        if number >= self.answers {
            self.silent.notify_one();
            std::future::pending::<()>().await;
        }
        pod["metadata"]["name"] = json!(format!("coder-{number}"));
        pod["metadata"]["uid"] = json!(format!("uid-{number}"));
        pod["metadata"]["creationTimestamp"] = json!("2030-01-01T00:00:05Z");
        if !self.deletes {
            self.pods.lock().push(pod.clone());
        }
        pod
    }

    fn record(&self, path: &str, patch: &Value) -> (StatusCode, Value) {
        if let Some(code) = *self.refuses_records.lock() {
            return failure(code);
        }
        let mut pods = self.pods.lock();
        let named = |pod: &&mut Value| {
            let name = pod["metadata"]["name"].as_str().unwrap();
            path.ends_with(&format!("/namespaces/team/pods/{name}/status"))
        };
        let Some(pod) = pods.iter_mut().find(named) else { return failure(StatusCode::NOT_FOUND) };
        assert_eq!(pod["metadata"]["uid"], patch["metadata"]["uid"]);
        pod["status"] = patch["status"].clone();
        (StatusCode::OK, pod.clone())
    }

    fn list(&self) -> Value {
        let items = self.pods.lock().clone();
        json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items })
    }

    fn delete(&self, path: &str) -> (StatusCode, Value) {
        let mut pods = self.pods.lock();
        let named =
            |pod: &Value| path.ends_with(&format!("/pods/{}", pod["metadata"]["name"].as_str().unwrap()));
        match pods.iter().position(named) {
            Some(index) => (StatusCode::OK, pods.remove(index)),
            None => failure(StatusCode::NOT_FOUND),
        }
    }

    /// Returns the reconciler of an operator that has just been started.
    fn operator(self: &Arc<Self>) -> Arc<Agents> {
        Parts::new(context(self.client()), Vec::new(), Vec::new(), Arc::new([])).agents
    }

    /// Returns the same, with the pods that its watch delivers, and the writer of these.
    fn watching_operator(self: &Arc<Self>) -> (Arc<Agents>, WorkerPods, Writer<Pod>) {
        let (pods, writer) = WorkerPods::new(Some("team".to_owned()));
        let agents = Parts::new(context(self.client()), Vec::new(), vec![pods.clone()], Arc::new([])).agents;
        (agents, pods, writer)
    }

    /// Returns a pod as a watch delivers it.
    fn pod(&self, number: usize) -> Pod {
        serde_json::from_value(self.pods.lock()[number].clone()).unwrap()
    }

    /// Returns the pods that an operator knows for its own, and the others.
    fn observe(&self, operator: &Agents, state: &AgentState) -> (Vec<WorkerPod>, Vec<WorkerPod>) {
        let (pods, mut writer) = WorkerPods::new(None);
        for pod in self.pods.lock().iter() {
            pods.apply(&mut writer, serde_json::from_value(pod.clone()).unwrap());
        }
        let known = (&state.creations, operator.context.pods_recorded_since);
        let (demand, now) = (DemandSnapshot::default(), Timestamp::UNIX_EPOCH);
        dereference::by_origin(dereference::worker_pods(&agent(), &[pods], &demand, known, now))
    }
}

fn failure(code: StatusCode) -> (StatusCode, Value) {
    let status = json!({ "kind": "Status", "status": "Failure", "message": "no", "code": code.as_u16() });
    (code, status)
}

fn agent() -> Agent {
    let agent =
        "{apiVersion: rota.dev/v1alpha1, kind: Agent, metadata: {name: coder, namespace: team, uid: agent-1},
        spec: {runtime: {scripted: {}}, slots: 1, replicas: 3}}";
    serde_saphyr::from_str(agent).unwrap()
}

fn plan(pods: &[WorkerPod]) -> Plan {
    let demand = DemandSnapshot { demand: v1::Demand::default(), ..DemandSnapshot::default() };
    build::plan(&agent().spec, HASH, pods, &demand, true)
}

#[tokio::test(start_paused = true)]
async fn operator_that_ends_repeats_no_creation() {
    let server = Arc::new(ApiServer { answers: 2, ..ApiServer::default() });
    let (operator, mut state, mut pods) = (server.operator(), AgentState::default(), Vec::new());
    assert_eq!(plan(&pods).start, 3);
    let (agent, all) = (agent(), plan(&pods));
    tokio::select! {
        started = operator.start_workers(&agent, &mut state, &mut pods, &all, HASH) => panic!("{started:?}"),
        () = server.silent.notified() => {}
    }
    assert_eq!(server.pods.lock().len(), 2, "the operator ends before the third");
    let (next, state) = (server.operator(), AgentState::default());
    let (own, unknown) = server.observe(&next, &state);
    assert_eq!(unknown, [], "the next operator deletes none of them");
    assert_eq!(announced(&state, &own).len(), 2);
    let mut own = own;
    own.iter_mut().for_each(|pod| HASH.clone_into(&mut pod.hash));
    assert_eq!(plan(&own).start, 1);
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_created_while_the_last_is_not_recorded() {
    // Another client may have written the pod at the same time.
    for refused in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::CONFLICT] {
        let server = Arc::new(ApiServer { answers: 9, ..ApiServer::default() });
        let (operator, mut state, mut pods) = (server.operator(), AgentState::default(), Vec::new());
        *server.refuses_records.lock() = Some(refused);
        let (agent, all) = (agent(), plan(&pods));
        assert!(
            operator.start_workers(&agent, &mut state, &mut pods, &all, HASH).await.is_err(),
            "{refused}"
        );
        assert_eq!((server.pods.lock().len(), pods.len()), (1, 1));
        assert_eq!(announced(&state, &server.observe(&operator, &state).0).len(), 0);
        // For an operator that ends now, the only one that it replaces.
        let unknown = server.observe(&server.operator(), &AgentState::default()).1;
        let ends = unknown.iter().map(|pod| unrecorded_end(pod, &state.history));
        assert_eq!(ends.collect::<Vec<_>>(), [UnrecordedEnd::Delete]);
        *server.refuses_records.lock() = None;
        operator.record_creations(&agent, &mut state).await.unwrap();
        assert_eq!(announced(&state, &server.observe(&operator, &state).0).len(), 1);
    }
}

/// Looks at the pods as a reconciliation does. Returns those of the operator, with the hash of the agent's template.
fn observe(operator: &Agents, state: &mut AgentState) -> Vec<WorkerPod> {
    let (mut own, unknown) =
        operator.observe(&agent(), state, &DemandSnapshot::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(unknown, []);
    own.iter_mut().for_each(|pod| HASH.clone_into(&mut pod.hash));
    own
}

#[tokio::test(start_paused = true)]
async fn created_pods_count_while_watch_is_silent() {
    let server = Arc::new(ApiServer { answers: 9, ..ApiServer::default() });
    let (operator, watched, mut writer) = server.watching_operator();
    let (agent, mut state) = (agent(), AgentState::default());
    let all = plan(&[]);
    operator.start_workers(&agent, &mut state, &mut Vec::new(), &all, HASH).await.unwrap();
    // Longer than a connection may be dead without being noticed: a task that runs there must not lose its worker.
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(200)).await;
        let own = observe(&operator, &mut state);
        assert_eq!((announced(&state, &own).len(), plan(&own).start), (3, 0));
    }
    // The control plane knows the worker of one of them, which counts as such.
    let worker = v1::WorkerDemand {
        worker: "namespaces/team/workers/coder-0".into(),
        connected: true,
        running: 1,
        ..v1::WorkerDemand::default()
    };
    let demand = v1::Demand { workers: vec![worker], ..v1::Demand::default() };
    let demand = DemandSnapshot { demand, ..DemandSnapshot::default() };
    let (own, _) = operator.observe(&agent, &mut state, &demand, Timestamp::UNIX_EPOCH);
    let lifecycles: Vec<_> = own.iter().map(|pod| pod.lifecycle).collect();
    assert_eq!(lifecycles, [PodLifecycle::Serving, PodLifecycle::Starting, PodLifecycle::Starting]);
    // The watch has to begin again. One pod was deleted meanwhile.
    let (first, second) = (server.pod(0), server.pod(1));
    for change in [Event::Init, Event::InitApply(first.clone()), Event::InitApply(second), Event::InitDone] {
        assert_eq!(observe(&operator, &mut state).len(), 3);
        watched.follow(&mut writer, &change);
    }
    let own = observe(&operator, &mut state);
    assert_eq!((announced(&state, &own).len(), plan(&own).start), (2, 1));
    watched.follow(&mut writer, &Event::Delete(first));
    assert_eq!(observe(&operator, &mut state).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pod_deleted_before_its_record_is_forgotten() {
    for refused in [None, Some(StatusCode::CONFLICT)] {
        let refuses_records = Mutex::new(refused);
        let server =
            Arc::new(ApiServer { answers: 9, deletes: true, refuses_records, ..ApiServer::default() });
        let (operator, watched, _) = server.watching_operator();
        let (agent, mut state) = (agent(), AgentState::default());
        let one = Plan { start: 1, ..Plan::default() };
        operator.start_workers(&agent, &mut state, &mut Vec::new(), &one, HASH).await.unwrap();
        assert_eq!(observe(&operator, &mut state), [], "{refused:?}");
        assert!(!watched.awaits("uid-0"));
    }
}

/// Its deletion is before the list, which was asked for before its creation: nothing else names it.
#[tokio::test(start_paused = true)]
async fn undelivered_pod_without_an_end_is_forgotten() {
    let server = Arc::new(ApiServer { answers: 9, ..ApiServer::default() });
    let (operator, watched, mut writer) = server.watching_operator();
    let (agent, mut state) = (agent(), AgentState::default());
    watched.follow(&mut writer, &Event::Init);
    let one = Plan { start: 1, ..Plan::default() };
    operator.start_workers(&agent, &mut state, &mut Vec::new(), &one, HASH).await.unwrap();
    let abandoned = || Plan { abandon: vec!["coder-0".into()], ..Plan::default() };
    // One that is there is awaited while it ends.
    let mut own = observe(&operator, &mut state);
    operator.execute(&agent, "coder", &mut state, &mut own, &abandoned(), HASH).await.unwrap();
    assert_eq!((server.pods.lock().len(), observe(&operator, &mut state).len()), (0, 1));
    watched.follow(&mut writer, &Event::InitDone);
    let mut own = observe(&operator, &mut state);
    assert_eq!(own.len(), 1, "the list may be older than the pod");
    operator.execute(&agent, "coder", &mut state, &mut own, &abandoned(), HASH).await.unwrap();
    assert_eq!(observe(&operator, &mut state), []);
    assert!(!watched.awaits("uid-0"));
}

/// The next agent of its name has no state with their creation.
#[tokio::test(start_paused = true)]
async fn pods_of_a_deleted_agent_are_not_awaited() {
    let server = Arc::new(ApiServer { answers: 9, ..ApiServer::default() });
    let (operator, _watched, _writer) = server.watching_operator();
    let (agent, mut state) = (agent(), AgentState::default());
    let one = Plan { start: 1, ..Plan::default() };
    operator.start_workers(&agent, &mut state, &mut Vec::new(), &one, HASH).await.unwrap();
    assert_eq!(observe(&operator, &mut state).len(), 1);
    operator.deleted(&agent);
    assert_eq!(observe(&operator, &mut AgentState::default()), []);
}

/// A caller of the API can name the resource of a task that was refused, or one that is refused in a moment.
#[tokio::test(start_paused = true)]
async fn pods_have_no_overrides_of_refused_tasks() {
    let server = Arc::new(ApiServer { answers: 9, ..ApiServer::default() });
    let (store, mut writer) = reflector::store::<Guarded<rota_crds::resource::Task>>();
    let refused = |name: &str, status: Value| -> Guarded<rota_crds::resource::Task> {
        serde_json::from_value(json!({
            "apiVersion": "rota.dev/v1alpha1",
            "kind": "Task",
            "metadata": { "name": name, "namespace": "team", "uid": name },
            "spec": {
                "agent": "coder",
                "isolation": "Pod",
                "podOverrides": { "volumes": [{ "name": "keys", "secret": { "secretName": "keys" } }] },
            },
            "status": status,
        }))
        .unwrap()
    };
    writer.apply_watcher_event(&Event::Apply(refused("ended", json!({ "phase": "Failed" }))));
    writer.apply_watcher_event(&Event::Apply(refused("new", json!({ "phase": "Pending" }))));
    let (trigger, _triggered) = tokio::sync::mpsc::channel(1);
    let operator =
        Parts::new(context(server.client()), Vec::new(), Vec::new(), Arc::new([(store, trigger)])).agents;
    let mut state = AgentState::default();
    for task in ["ended", "new"] {
        let own = Plan { start_for: vec![task.to_owned()], ..Plan::default() };
        operator.start_workers(&agent(), &mut state, &mut Vec::new(), &own, HASH).await.unwrap();
    }
    let pods = server.pods.lock();
    assert_eq!(pods.len(), 1, "only the one without a resource");
    assert!(!pods[0]["spec"]["volumes"].to_string().contains("keys"), "{}", pods[0]["spec"]);
    let failures: Vec<_> = state.isolated_failures(Instant::now()).collect();
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].0, failures[0].1.reason.as_str()), ("new", "InvalidSpec"));
    let message = &failures[0].1.message;
    assert!(message.starts_with("spec.podOverrides.volumes[0].secret: "), "{message}");
}
