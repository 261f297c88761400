//! Certificate authority in the namespaces of agents, for their pods to trust: one ConfigMap for all agents of a namespace.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{MANAGER, labels};
use crate::context::Context;
use crate::error::ReconcileError;

/// Interval at which the authority in a namespace is checked: users may delete it.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// What the namespaces were found to have, and when.
#[derive(Default)]
pub(super) struct Authorities(Mutex<HashMap<String, (String, Instant)>>);

impl Authorities {
    /// Publishes the authority to a namespace, unless it was found or published there a moment ago.
    pub(super) async fn publish(
        &self,
        context: &Context,
        namespace: &str,
        authority: &str,
    ) -> Result<(), ReconcileError> {
        if self.is_current(namespace, authority, Instant::now()) {
            return Ok(());
        }
        publish(context, namespace, authority).await?;
        self.published(namespace, authority, Instant::now());
        Ok(())
    }

    /// Forgets a namespace, which may have no agents any more.
    pub(super) fn forget(&self, namespace: &str) {
        self.0.lock().remove(namespace);
    }

    fn is_current(&self, namespace: &str, authority: &str, now: Instant) -> bool {
        let known = self.0.lock();
        known.get(namespace).is_some_and(|(known, at)| known == authority && now - *at < CHECK_INTERVAL)
    }

    fn published(&self, namespace: &str, authority: &str, now: Instant) {
        self.0.lock().insert(namespace.to_owned(), (authority.to_owned(), now));
    }
}

async fn publish(context: &Context, namespace: &str, authority: &str) -> Result<(), ReconcileError> {
    let maps: Api<ConfigMap> = Api::namespaced(context.kube.clone(), namespace);
    let name = context.options.class.authority_name();
    let existing = maps.get_opt(&name).await?;
    let known = existing.as_ref().and_then(|map| map.data.as_ref()?.get("ca.crt"));
    if known.is_some_and(|known| known == authority) {
        return Ok(());
    }
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels("trust")),
            ..Default::default()
        },
        data: Some([("ca.crt".to_owned(), authority.to_owned())].into()),
        ..Default::default()
    };
    maps.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn authority_is_checked_periodically_per_namespace() {
        let (known, now) = (Authorities::default(), Instant::now());
        assert!(!known.is_current("team", "a", now));
        known.published("team", "a", now);
        assert!(known.is_current("team", "a", now) && !known.is_current("team", "b", now));
        assert!(!known.is_current("other", "a", now));
        assert!(!known.is_current("team", "a", now + CHECK_INTERVAL));
        known.forget("team");
        assert!(!known.is_current("team", "a", now));
    }
}
