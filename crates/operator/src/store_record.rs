//! Last version of the control plane's store, kept with the leader lease: an operator that was away while the store was
//! restored or replaced notices it too.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use rota_proto::v1::StoreVersion;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::context::Context;

/// Annotation of the lease: id, revision and run of the store.
const ANNOTATION: &str = "rota.dev/store";
/// Field manager of the annotation: another one renews the lease.
const MANAGER: &str = "rota-operator-store";
/// Interval at which a changed revision is written.
const INTERVAL: Duration = Duration::from_secs(30);

/// Reads the version that an operator wrote last.
pub(crate) async fn read(context: &Context) -> Result<(), Error> {
    let lease = leases(context).get_opt(&context.options.lease).await?;
    let annotation = lease.as_ref().and_then(|lease| lease.annotations().get(ANNOTATION));
    if let Some(version) = annotation.and_then(|text| parse(text)) {
        context.store.observe(version);
    }
    Ok(())
}

/// Writes the version when it has changed, until `shutdown`, and then a last time. A failure is only logged: it is written
/// again.
pub(crate) async fn keep(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let mut written = None;
    loop {
        let stopping = shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none();
        let version = context.store.version().map(|version| format(&version));
        if version.is_some() && version != written {
            match write(&context, version.as_deref().unwrap_or_default()).await {
                Ok(()) => written = version,
                Err(error) => tracing::warn!(%error, "failed to write down the version of the store"),
            }
        }
        if stopping {
            return Ok(());
        }
    }
}

async fn write(context: &Context, version: &str) -> Result<(), kube::Error> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "annotations": { ANNOTATION: version } },
    });
    let params = PatchParams::apply(MANAGER).force();
    leases(context).patch(&context.options.lease, &params, &Patch::Apply(&lease)).await.map(drop)
}

fn leases(context: &Context) -> Api<Lease> {
    Api::namespaced(context.kube.clone(), &context.options.namespace)
}

fn format(version: &StoreVersion) -> String {
    format!("{}/{}/{}", version.id, version.revision, version.run)
}

/// Returns the version of an annotation. Those of earlier versions have no run.
fn parse(text: &str) -> Option<StoreVersion> {
    let (id, rest) = text.split_once('/')?;
    let (revision, run) = rest.split_once('/').unwrap_or((rest, ""));
    let revision = revision.parse().ok()?;
    Some(StoreVersion { id: id.to_owned(), run: run.to_owned(), revision, runs: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_store::{ControlStore, Loss, StoreChange};

    #[test]
    fn store_restored_while_the_operator_was_away_is_noticed() {
        let at = |run: &str, revision| StoreVersion {
            id: "a".into(),
            run: run.into(),
            revision,
            runs: Vec::new(),
        };
        let written = format(&at("1", 20));
        let after_restart = |now: StoreVersion| {
            let store = ControlStore::default();
            store.observe(parse(&written).unwrap());
            (store.observe(now), store.generation().loss())
        };
        assert_eq!(after_restart(at("2", 20)), (StoreChange::Restarted, None));
        assert_eq!(after_restart(at("2", 19)).1, Some(Loss::Restored));
        assert_eq!(after_restart(StoreVersion { id: "b".into(), ..at("2", 99) }).1, Some(Loss::Replaced));
        let run = |run: &str, began| rota_proto::v1::StoreRun { run: run.into(), began };
        let later = StoreVersion { runs: vec![run("1", 0), run("2", 19), run("3", 30)], ..at("3", 30) };
        assert_eq!(after_restart(later).1, Some(Loss::Restored), "restored, and started twice since");
        assert_eq!(parse("a/20"), Some(at("", 20)), "of an earlier version");
        assert_eq!(parse("a"), None, "an annotation of something else");
    }
}
