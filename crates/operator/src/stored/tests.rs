//! Schedules and templates between an API server and a real control plane.

use std::collections::BTreeMap;
use std::future::ready;

use http::{Method, StatusCode};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Client as KubeClient, ResourceExt};
use parking_lot::Mutex;
use rota_crds::resource::{Schedule, Workflow, WorkflowPhase, WorkflowTemplate};
use rota_proto::v1;
use rota_testkit::cluster::Backend;
use rota_testkit::{Cluster, tasks};
use serde_json::{Value, json};

use super::*;
use crate::context::tests::{api_server, context};
use crate::kind::Guarded;
use crate::workflow;

/// API server that keeps the objects of a namespace with their statuses.
#[derive(Default)]
struct ApiServer(Mutex<BTreeMap<String, Value>>);

impl ApiServer {
    fn client(self: &Arc<Self>) -> KubeClient {
        let server = Arc::clone(self);
        api_server(move |method, path, sent| ready(server.answer(&method, &path, &sent)))
    }

    fn answer(&self, method: &Method, path: &str, sent: &Value) -> (StatusCode, Value) {
        let path = path.trim_end_matches("/status");
        let mut objects = self.0.lock();
        let Some(object) = objects.get_mut(path) else {
            let status = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404 });
            return (StatusCode::NOT_FOUND, status);
        };
        match *method {
            Method::GET => {}
            Method::PATCH => object["status"] = sent["status"].clone(),
            _ => panic!("{method} {path}"),
        }
        (StatusCode::OK, object.clone())
    }

    /// Applies an object, and returns it as the operator reads it.
    fn apply<K: Kind>(&self, name: &str, spec: Value) -> K {
        let path = path::<K>(name);
        let mut objects = self.0.lock();
        let object = objects.entry(path).or_insert_with(|| {
            json!({
                "apiVersion": K::api_version(&()), "kind": K::kind(&()),
                "metadata": { "name": name, "namespace": "team", "uid": uuid::Uuid::new_v4().to_string() },
            })
        });
        object["spec"] = spec;
        serde_json::from_value(object.clone()).unwrap()
    }

    fn read<K: Kind>(&self, name: &str) -> K {
        serde_json::from_value(self.0.lock()[&path::<K>(name)].clone()).unwrap()
    }

    fn delete<K: Kind>(&self, name: &str) {
        self.0.lock().remove(&path::<K>(name)).unwrap();
    }
}

fn path<K: Kind>(name: &str) -> String {
    format!("/apis/rota.dev/v1alpha1/namespaces/team/{}/{name}", K::plural(&()))
}

/// Operator of an API server and a control plane.
struct Operator {
    server: Arc<ApiServer>,
    context: Context,
    cluster: Cluster,
}

impl Operator {
    async fn start() -> Self {
        let (server, cluster) = (Arc::<ApiServer>::default(), Cluster::start(Backend::Memory).await.unwrap());
        let context = Context { control: cluster.client().clone(), ..context(server.client()) };
        Self { server, context, cluster }
    }

    fn parts<K: StoredKind>(&self, stores: Stores<K>) -> Parts<K> {
        Parts::new(self.context.clone(), stores)
    }

    /// Applies an object, reconciles it, and returns it with its status.
    async fn apply<K: StoredKind>(&self, parts: &Parts<K>, name: &str, spec: Value) -> K {
        let object = self.server.apply(name, spec);
        Box::pin(parts.objects.reconcile(&object)).await.unwrap();
        self.server.read(name)
    }
}

/// Returns a store with an object, and the end of the channel that triggers it.
fn watched<K>(object: &K) -> (Stores<K>, mpsc::Receiver<ObjectRef<Guarded<K>>>)
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let (store, mut writer): (Store<Guarded<K>>, _) = reflector::store();
    writer.apply_watcher_event(&Event::Apply(Guarded(Ok(object.clone()))));
    let (trigger, triggered) = mpsc::channel(8);
    (Arc::new([(store, trigger)]), triggered)
}

fn nightly() -> Value {
    json!({ "cron": "0 3 * * *", "workflow": { "steps": [{ "name": "a", "wait": { "duration": "0s" } }] } })
}

fn accepted(schedule: &Schedule) -> (&str, &str) {
    let condition = &schedule.status.as_ref().unwrap().conditions[0];
    (&condition.status, &condition.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_follows_its_resource() {
    let operator = Operator::start().await;
    let (control, parts) = (operator.cluster.client(), operator.parts(Arc::new([])));
    let schedule: Schedule = operator.apply(&parts, "nightly", nightly()).await;
    assert_eq!(accepted(&schedule), ("True", "Accepted"));
    assert!(schedule.status.unwrap().next_run_time.is_some());
    let name = "namespaces/team/schedules/nightly".to_owned();
    let get = || control.get_schedule(v1::GetScheduleRequest { name: name.clone() });
    assert_eq!(get().await.unwrap().labels[CLUSTER], "cluster");

    let run = v1::RunScheduleRequest { name: name.clone(), ..Default::default() };
    let workflow = control.run_schedule(run).await.unwrap().workflow.unwrap();
    tasks::eventually("the run has ended", || async {
        let schedule: Schedule = operator.apply(&parts, "nightly", nightly()).await;
        // An active run has the state of its workflow, which ends before the schedule's record follows it.
        let status = schedule.status.unwrap();
        Ok((status.last_run_state.as_deref(), status.active) == (Some("Succeeded"), 0))
    })
    .await
    .unwrap();
    let ran = operator.server.read::<Schedule>("nightly").status.unwrap();
    assert_eq!(ran.last_run_id.as_deref(), Some(workflow.uid.as_str()));

    let mut paused = nightly();
    paused["paused"] = json!(true);
    let status = operator.apply::<Schedule>(&parts, "nightly", paused).await.status.unwrap();
    assert_eq!((status.next_run_time, status.message.as_deref()), (None, Some("the schedule is paused")));
    assert_eq!(status.last_run_state.as_deref(), Some("Succeeded"));

    let mut refused = nightly();
    refused["cron"] = json!("0 0 30 2 *");
    let refused: Schedule = operator.apply(&parts, "nightly", refused).await;
    assert_eq!(accepted(&refused).0, "False");
    assert!(refused.status.unwrap().message.unwrap().contains("schedule.spec.cron"));
    assert_eq!(get().await.unwrap().spec.unwrap().cron, "0 3 * * *");

    // Not of this cluster.
    let foreign = v1::Schedule { labels: BTreeMap::new(), ..get().await.unwrap() };
    let foreign = v1::Schedule { name: format!("{name}-by-hand"), ..foreign };
    let request =
        v1::UpdateScheduleRequest { schedule: Some(foreign), allow_missing: true, ..Default::default() };
    control.update_schedule(request).await.unwrap();
    parts.objects.delete_orphans().await.unwrap();
    assert_eq!(control.all_schedules("namespaces/team").await.unwrap().len(), 2);
    operator.server.delete::<Schedule>("nightly");
    // Which only the operator's own identity may do: the end-to-end tests have it.
    let ReconcileError::Control(refused) = parts.objects.delete_orphans().await.unwrap_err() else {
        panic!()
    };
    assert_eq!(refused.reason.as_deref(), Some("MANAGED_BY_CLUSTER"), "{refused}");
    assert!(refused.message.contains("schedule nightly belongs to"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_template_wakes_what_waits_for_it() {
    let operator = Operator::start().await;
    let spec = json!({ "cron": "0 3 * * *", "workflow": { "template": "deploy" } });
    let schedule: Schedule = operator.server.apply("nightly", spec.clone());
    let (stores, mut schedules) = watched(&schedule);
    let parts = operator.parts(stores);
    let waits: Schedule = operator.apply(&parts, "nightly", spec.clone()).await;
    assert_eq!(accepted(&waits), ("False", "TemplateNotFound"));

    let of_template = json!({ "template": "deploy" });
    let workflow: Workflow = operator.server.apply("release", of_template.clone());
    let (stores, mut workflows) = watched(&workflow);
    let reconciler = workflow::Parts::new(operator.context.clone(), stores).workflows;
    Box::pin(reconciler.reconcile(&workflow)).await.unwrap();
    let status = operator.server.read::<Workflow>("release").status.unwrap();
    assert_eq!((status.phase, status.reason.as_deref()), (WorkflowPhase::Pending, Some("TemplateNotFound")));

    let templates = operator.parts::<WorkflowTemplate>(Arc::new([]));
    let steps = json!([{ "name": "a", "wait": { "signal": "go" } }]);
    operator.apply(&templates, "other", json!({ "workflow": { "steps": steps } })).await;
    assert!(schedules.is_empty() && workflows.is_empty(), "another template wakes nothing");
    let deploy: WorkflowTemplate =
        operator.apply(&templates, "deploy", json!({ "workflow": { "steps": steps } })).await;
    assert_eq!(deploy.status.unwrap().version, Some(1));
    assert_eq!(schedules.recv().await.unwrap().name, "nightly");
    assert_eq!(workflows.recv().await.unwrap().name, "release");

    let stored: Schedule = operator.apply(&parts, "nightly", spec).await;
    assert_eq!(accepted(&stored), ("True", "Accepted"));
    Box::pin(reconciler.reconcile(&workflow)).await.unwrap();
    let status = operator.server.read::<Workflow>("release").status.unwrap();
    assert_eq!(status.phase, WorkflowPhase::Running);
    // It waits no longer.
    operator.apply::<WorkflowTemplate>(&templates, "deploy", json!({ "workflow": { "steps": steps } })).await;
    assert!(schedules.is_empty());
}

#[tokio::test]
async fn deleted_object_waits_for_no_template() {
    let waiting = Waiting::<Schedule>::default();
    let read = |spec: Value| -> Schedule { ApiServer::default().apply("nightly", spec) };
    let schedule = read(json!({ "cron": "0 3 * * *" }));
    let (stores, mut triggered) = watched(&schedule);
    waiting.wait(&stores, &schedule, "first@2");
    // Its template is another one meanwhile.
    waiting.wait(&stores, &schedule, "second");
    waiting.wake("team", "first").await;
    waiting.wake("elsewhere", "second").await;
    assert!(triggered.is_empty());
    waiting.forget(&schedule);
    waiting.wake("team", "second").await;
    assert!(triggered.is_empty());
    waiting.wait(&stores, &schedule, "first@2");
    waiting.wake("team", "first").await;
    assert_eq!(triggered.recv().await.unwrap().name, schedule.name_any());
}
