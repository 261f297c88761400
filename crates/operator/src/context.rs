//! Clients and settings shared by all reconcilers.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use rota_crds::resource::{Schedule, Workflow};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Options;
use crate::cluster::{STATUS_MANAGER, is_deleted};
use crate::control_store::ControlStore;
use crate::error::ReconcileError;
use crate::health::Health;
use crate::kind::{Guarded, Kind};
use crate::task::RouteWaits;
use crate::template::Waiting;

/// Characters of an event's note; the API rejects notes over a kilobyte.
const MAX_NOTE_CHARS: usize = 1000;

/// Clients and settings shared by all reconcilers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub kube: Client,
    pub control: rota_client::Client,
    pub options: Arc<Options>,
    pub recorder: Recorder,
    pub health: Arc<Health>,
    /// Certificate authority that pods trust, in PEM.
    pub authority: tokio::sync::watch::Receiver<String>,
    /// Identifies this cluster among those that share a control plane: the UID of the operator's namespace, which
    /// outlives a release.
    pub cluster: Arc<str>,
    /// Store of the control plane.
    pub store: Arc<ControlStore>,
    /// Time since which operators record the pods that they create.
    pub pods_recorded_since: Timestamp,
    /// Why the tasks of each route wait.
    pub waits: Arc<RouteWaits>,
    /// Workflows whose template does not exist.
    pub waiting_workflows: Arc<Waiting<Workflow>>,
    /// Schedules whose template does not exist.
    pub waiting_schedules: Arc<Waiting<Schedule>>,
}

impl Context {
    pub(crate) fn recorder(client: &Client, options: &Options) -> Recorder {
        let reporter =
            Reporter { controller: "rota-operator".into(), instance: Some(options.identity.clone()) };
        Recorder::new(client.clone(), reporter)
    }

    /// Returns whether a namespace is among the watched ones.
    pub(crate) fn watches(&self, namespace: &str) -> bool {
        let watched = &self.options.watch_namespaces;
        watched.is_empty() || watched.iter().any(|watched| watched == namespace)
    }

    /// Applies an object's status. Does nothing if the object was deleted or replaced by one of the same name. Returns whether all
    /// of it was written: older definitions lack fields.
    pub(crate) async fn write_status<K>(
        &self,
        controller: &'static str,
        object: &ObjectMeta,
        status: &impl Serialize,
    ) -> Result<bool, ReconcileError>
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let namespace = object.namespace.as_deref().unwrap_or_default();
        let objects: Api<Guarded<K>> = Api::namespaced(self.kube.clone(), namespace);
        // The UID makes the write fail for a newer object of the same name.
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "uid": object.uid },
            "status": status,
        });
        match apply_status(&objects, object.name.as_deref().unwrap_or_default(), patch).await {
            Ok(complete) => {
                self.health.status_written(controller);
                Ok(complete)
            }
            Err(error) if is_deleted(&error) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Publishes an Event on an object. A failure is only logged: events inform users, nothing depends on them.
    pub(crate) async fn event<K>(&self, object: &K, type_: EventType, reason: &str, action: &str, note: &str)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        self.publish(object, event(type_, reason, action, note)).await;
    }

    /// Publishes a warning on an object that concerns another one. Events of different others are not counted together,
    /// which would show the note of the first.
    pub(crate) async fn event_of<K>(
        &self,
        object: &K,
        other: ObjectReference,
        reason: &str,
        action: &str,
        note: &str,
    ) where
        K: kube::Resource<DynamicType = ()>,
    {
        let event = Event { secondary: Some(other), ..event(EventType::Warning, reason, action, note) };
        self.publish(object, event).await;
    }

    async fn publish<K>(&self, object: &K, event: Event)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let reason = &event.reason;
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, reason, "failed to publish an event");
        }
    }
}

/// Applies a status, without the fields that the definition in the cluster lacks. Returns whether it has all of them.
async fn apply_status<K: Kind>(
    objects: &Api<Guarded<K>>,
    name: &str,
    mut patch: Value,
) -> Result<bool, kube::Error> {
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let rejected = match objects.patch_status(name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => return Ok(true),
        Err(error) => error,
    };
    let missing = leave_out_undeclared(&mut patch, &rejected);
    if missing.is_empty() {
        return Err(rejected);
    }
    let (kind, fields) = (K::kind(&()), missing.join(", "));
    tracing::warn!(%kind, name, fields, "the custom resource definitions are older than the operator: upgrade the chart rota-crds");
    objects.patch_status(name, &params, &Patch::Apply(&patch)).await.map(|_| false)
}

/// Removes the fields of a status that the API server does not know, and returns their names.
fn leave_out_undeclared(patch: &mut Value, rejected: &kube::Error) -> Vec<String> {
    let (kube::Error::Api(rejection), Some(status)) = (rejected, patch["status"].as_object_mut()) else {
        return Vec::new();
    };
    let is_undeclared = |field: &String| {
        rejection.message.contains(&format!(".status.{field}: field not declared in schema"))
    };
    let undeclared: Vec<_> = status.keys().filter(|field| is_undeclared(field)).cloned().collect();
    for field in &undeclared {
        status.remove(field);
    }
    undeclared
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(MAX_NOTE_CHARS).collect()),
        action: action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;
    use std::future::ready;

    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use parking_lot::Mutex;
    use rota_crds::resource::{Agent, AgentStatus};

    use super::*;
    use crate::{Class, WorkerOptions};

    /// Returns the context of an operator of this API server, whose control plane does not respond.
    pub(crate) fn context(kube: Client) -> Context {
        let options = Options {
            endpoint: "http://127.0.0.1:1".into(),
            token_file: "token".into(),
            namespace: "rota".into(),
            identity: "operator".into(),
            watch_namespaces: Vec::new(),
            class: Class::default(),
            service: "rota".into(),
            tls_secret: "tls".into(),
            tls_existing: false,
            extra_names: Vec::new(),
            ca_secret: "ca".into(),
            admin_token_secret: "admin".into(),
            lease: "lease".into(),
            workers: WorkerOptions::default(),
            http_listen: None,
        };
        Context {
            control: rota_client::Client::new(rota_client::Options::new(&options.endpoint)).unwrap(),
            recorder: Context::recorder(&kube, &options),
            kube,
            options: Arc::new(options),
            health: Arc::default(),
            authority: tokio::sync::watch::channel(String::new()).1,
            cluster: "cluster".into(),
            store: Arc::default(),
            pods_recorded_since: "2030-01-01T00:00:00Z".parse().unwrap(),
            waits: Arc::default(),
            waiting_workflows: Arc::default(),
            waiting_schedules: Arc::default(),
        }
    }

    /// Returns the client of an API server that answers by the method and path of a request, and what it sends.
    pub(crate) fn api_server<A>(answer: impl Fn(Method, String, Value) -> A + Send + Sync + 'static) -> Client
    where
        A: Future<Output = (StatusCode, Value)> + Send + 'static,
    {
        let answer = Arc::new(answer);
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = Arc::clone(&answer);
            async move {
                let (parts, body) = request.into_parts();
                let sent = body.collect_bytes().await.unwrap();
                let sent = serde_json::from_slice(&sent).unwrap_or_default();
                let (code, found) = (*answer)(parts.method, parts.uri.path().to_owned(), sent).await;
                let body = Body::from(serde_json::to_vec(&found).unwrap());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "team")
    }

    /// Answers as an API server whose definition of agents has no `acceptedSpec`, and keeps what it takes.
    fn older_cluster() -> (Client, Arc<Mutex<Vec<Value>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&written);
        let client = api_server(move |_, _, patch| {
            if patch["status"].get("acceptedSpec").is_some() {
                let message = "failed to create typed patch object (team/coder; rota.dev/v1alpha1, Kind=Agent): \
                               .status.acceptedSpec: field not declared in schema";
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": 500 });
                return ready((StatusCode::INTERNAL_SERVER_ERROR, status));
            }
            taken.lock().push(patch["status"].clone());
            let metadata = json!({ "name": "coder", "namespace": "team" });
            let spec = json!({ "runtime": { "scripted": {} } });
            ready((
                StatusCode::OK,
                json!({ "apiVersion": "rota.dev/v1alpha1", "kind": "Agent", "metadata": metadata, "spec": spec }),
            ))
        });
        (client, written)
    }

    #[tokio::test]
    async fn status_is_written_without_undeclared_fields() {
        let (client, written) = older_cluster();
        let objects: Api<Guarded<Agent>> = Api::namespaced(client, "team");
        let status =
            AgentStatus { accepted_spec: Some("{}".to_owned()), idle_workers: 3, ..AgentStatus::default() };
        let complete = apply_status(&objects, "coder", json!({ "status": status })).await.unwrap();
        assert!(!complete);
        let [taken] = &written.lock()[..] else { panic!("{written:?}") };
        assert_eq!((&taken["idleWorkers"], taken.get("acceptedSpec")), (&json!(3), None));
    }
}
