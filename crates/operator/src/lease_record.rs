//! What operators leave to the next one with the leader lease: the last version of the control plane's store, so that one that was away
//! while it was restored or replaced notices it too; and since when they record the pods that they create.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rota_proto::v1::StoreVersion;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::{Error, Options};

/// Annotation of the lease: id, revision and run of the store.
const STORE: &str = "rota.dev/store";
/// Annotation of the lease: since when operators record the pods that they create.
const PODS_RECORDED_SINCE: &str = "rota.dev/pods-recorded-since";
/// Field manager of the annotations: another one renews the lease. Operators of versions that record no pods apply only the first one, which
/// removes the second: after a rollback, the time is set again.
const MANAGER: &str = "rota-operator-store";
/// Interval at which a changed revision is written.
const INTERVAL: Duration = Duration::from_secs(30);

/// Reads the version that an operator wrote last.
pub(crate) async fn read(context: &Context) -> Result<(), Error> {
    let lease = leases(&context.kube, &context.options).get_opt(&context.options.lease).await?;
    let annotation = lease.as_ref().and_then(|lease| lease.annotations().get(STORE));
    if let Some(version) = annotation.and_then(|text| parse(text)) {
        context.store.observe(version);
    }
    Ok(())
}

/// Writes the version when it has changed, until `shutdown`, and then a last time. A failure is only logged: it is written
/// again.
pub(crate) async fn keep(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let (leases, mut written) = (leases(&context.kube, &context.options), None);
    loop {
        let stopping = shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none();
        let version = context.store.version().map(|version| format(&version));
        if version.is_some() && version != written {
            match write(&leases, &context.options.lease, version.clone(), context.pods_recorded_since).await {
                Ok(()) => written = version,
                Err(error) => tracing::warn!(%error, "failed to write down the version of the store"),
            }
        }
        if stopping {
            return Ok(());
        }
    }
}

/// Returns since when operators record the pods that they create, and writes it down if this one is the first. Only the leader calls it.
pub(crate) async fn pods_recorded_since(
    client: &Client,
    options: &Options,
) -> Result<Timestamp, kube::Error> {
    recorded_since(&leases(client, options), &options.lease).await
}

async fn recorded_since(leases: &Api<Lease>, name: &str) -> Result<Timestamp, kube::Error> {
    let lease = leases.get_opt(name).await?;
    let annotation = |name| lease.as_ref().and_then(|lease| lease.annotations().get(name));
    if let Some(since) = annotation(PODS_RECORDED_SINCE).and_then(|text| text.parse().ok()) {
        return Ok(since);
    }
    // By the clock of the API server, which dates pods.
    let dry_run = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
    let metadata = ObjectMeta { generate_name: Some(format!("{name}-")), ..ObjectMeta::default() };
    let dated = leases.create(&dry_run, &Lease { metadata, spec: None }).await?;
    let since = dated.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    write(leases, name, annotation(STORE).cloned(), since).await?;
    tracing::info!(%since, "recording the pods that this operator creates; older ones have no record");
    Ok(since)
}

async fn write(
    leases: &Api<Lease>,
    name: &str,
    store: Option<String>,
    pods_recorded_since: Timestamp,
) -> Result<(), kube::Error> {
    let since = (PODS_RECORDED_SINCE, pods_recorded_since.to_string());
    let annotations: BTreeMap<_, _> = store.map(|store| (STORE, store)).into_iter().chain([since]).collect();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "annotations": annotations },
    });
    let params = PatchParams::apply(MANAGER).force();
    leases.patch(name, &params, &Patch::Apply(&lease)).await.map(drop)
}

fn leases(client: &Client, options: &Options) -> Api<Lease> {
    Api::namespaced(client.clone(), &options.namespace)
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
    use std::sync::Arc;
    use std::task::{self, Poll};

    use futures::future::BoxFuture;
    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::Value;
    use tower::{BoxError, Service};

    use super::*;
    use crate::control_store::{ControlStore, Loss, StoreChange};

    /// An API server with one lease, whose annotations have one owner, and a clock.
    #[derive(Debug, Clone)]
    struct ApiServer {
        lease: Arc<Mutex<Value>>,
        clock: Arc<Mutex<String>>,
    }

    impl Service<Request<Body>> for ApiServer {
        type Response = Response<Body>;
        type Error = BoxError;
        type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

        fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let server = self.clone();
            Box::pin(async move {
                let (method, query) =
                    (request.method().clone(), request.uri().query().unwrap_or_default().to_owned());
                let body = request.into_body().collect_bytes().await?;
                let mut answer = server.lease.lock().clone();
                if method == Method::POST {
                    assert!(query.contains("dryRun=All"), "{query}");
                    answer = serde_json::from_slice(&body)?;
                    answer["metadata"]["creationTimestamp"] = json!(*server.clock.lock());
                }
                if method == Method::PATCH {
                    assert!(query.contains("fieldManager=rota-operator-store"), "{query}");
                    let patch: Value = serde_json::from_slice(&body)?;
                    answer["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
                    *server.lease.lock() = answer.clone();
                }
                Ok(Response::new(Body::from(serde_json::to_vec(&answer)?)))
            })
        }
    }

    #[tokio::test]
    async fn first_operator_that_records_pods_writes_when() {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "leader", "namespace": "rota", "annotations": {STORE: "a/20/1"}}, "spec": {},
        });
        let clock = Arc::new(Mutex::new("2030-01-01T00:00:00Z".to_owned()));
        let server = ApiServer { lease: Arc::new(Mutex::new(lease)), clock: Arc::clone(&clock) };
        let lease = Arc::clone(&server.lease);
        let leases: Api<Lease> = Api::namespaced(Client::new(server, "rota"), "rota");
        let since = async || recorded_since(&leases, "leader").await.unwrap().to_string();

        assert_eq!(since().await, "2030-01-01T00:00:00Z");
        *clock.lock() = "2030-01-01T00:05:00Z".into();
        assert_eq!(since().await, "2030-01-01T00:00:00Z", "of the next operator, or after a restart");
        write(&leases, "leader", Some("a/21/1".into()), "2030-01-01T00:00:00Z".parse().unwrap())
            .await
            .unwrap();
        let annotations = lease.lock()["metadata"]["annotations"].clone();
        assert_eq!(annotations, json!({STORE: "a/21/1", PODS_RECORDED_SINCE: "2030-01-01T00:00:00Z"}));
        // An earlier version was the leader meanwhile, and has created pods.
        lease.lock()["metadata"]["annotations"] = json!({STORE: "a/22/1"});
        assert_eq!(since().await, "2030-01-01T00:05:00Z");
        assert_eq!(lease.lock()["metadata"]["annotations"][STORE], "a/22/1");
    }

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
