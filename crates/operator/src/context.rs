//! What every reconciler is given.

use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, ResourceExt};

use serde::Serialize;
use serde_json::json;

use crate::Options;
use crate::cluster::{STATUS_MANAGER, is_gone};
use crate::controller::{Failure, Kind};
use crate::health::Health;

/// What every reconciler is given. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub kube: Client,
    pub control: rota_client::Client,
    pub options: Arc<Options>,
    pub recorder: Recorder,
    pub health: Arc<Health>,
    /// The authority that pods shall trust, in PEM.
    pub authority: tokio::sync::watch::Receiver<String>,
    /// Names this cluster among those that one control plane may serve: the uid of our namespace,
    /// which outlives a release.
    pub cluster: Arc<str>,
}

impl Context {
    pub(crate) fn recorder(client: &Client, options: &Options) -> Recorder {
        let reporter =
            Reporter { controller: "rota-operator".into(), instance: Some(options.identity.clone()) };
        Recorder::new(client.clone(), reporter)
    }

    /// Whether a namespace is ours.
    pub(crate) fn watches(&self, namespace: &str) -> bool {
        let watched = &self.options.watch_namespaces;
        watched.is_empty() || watched.iter().any(|one| one == namespace)
    }

    /// Writes what an object's status says. One that is gone, or has given its name to another, needs none.
    pub(crate) async fn write_status<K>(
        &self,
        controller: &'static str,
        object: &K,
        status: &impl Serialize,
    ) -> Result<(), Failure>
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let objects: Api<K> = Api::namespaced(self.kube.clone(), &object.namespace().unwrap_or_default());
        // The uid keeps it from an object that has taken the name since.
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "uid": object.uid() },
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        match objects.patch_status(&object.name_any(), &params, &Patch::Apply(&patch)).await {
            Ok(_) => self.health.wrote(controller),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Writes an Event on an object. One that cannot be written is only logged: it is for people, and
    /// what it is about goes on.
    pub(crate) async fn event<K>(&self, object: &K, type_: EventType, reason: &str, action: &str, note: &str)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        // The API refuses notes over a kilobyte.
        let note = note.chars().take(1000).collect();
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, reason, "an event could not be written");
        }
    }
}
