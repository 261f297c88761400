//! Clients and settings shared by all reconcilers.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use serde::Serialize;
use serde_json::json;

use crate::Options;
use crate::cluster::{STATUS_MANAGER, is_deleted};
use crate::control_store::ControlStore;
use crate::error::ReconcileError;
use crate::health::Health;
use crate::kind::{Guarded, Kind};

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

    /// Applies an object's status. Does nothing if the object was deleted or replaced by one of the same name.
    pub(crate) async fn write_status<K>(
        &self,
        controller: &'static str,
        object: &ObjectMeta,
        status: &impl Serialize,
    ) -> Result<(), ReconcileError>
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
        let params = PatchParams::apply(STATUS_MANAGER).force();
        match objects
            .patch_status(object.name.as_deref().unwrap_or_default(), &params, &Patch::Apply(&patch))
            .await
        {
            Ok(_) => self.health.status_written(controller),
            Err(error) if is_deleted(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
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

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(MAX_NOTE_CHARS).collect()),
        action: action.to_owned(),
        secondary: None,
    }
}
