//! Leader election between operators. Losing the lease ends the process: only then is it certain that two operators
//! never act at the same time.

use std::task::{self, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use kube_lease_manager::LeaseManagerBuilder;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, MANAGER};
use crate::{Error, Options};

/// Validity of the lease after its last renewal.
const LEASE_SECONDS: u64 = 15;
/// Time before its expiry at which the lease is renewed.
const RENEW_BEFORE_SECONDS: u64 = 8;
/// Time for one call that renews the lease: a second one fits before the lease expires.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Time allowed for releasing the lease on shutdown.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Leader lease that this operator holds.
#[derive(Debug)]
pub(crate) struct Leadership {
    lost: CancellationToken,
    release: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

/// Waits until this operator is the leader. Returns `None` on shutdown.
pub(crate) async fn acquire(
    config: &Config,
    client: &Client,
    options: &Options,
    shutdown: &CancellationToken,
) -> Result<Option<Leadership>, Error> {
    create(client, options).await?;
    // Other calls may take longer than the lease is valid.
    let mut config = config.clone();
    config.connect_timeout = Some(CALL_TIMEOUT);
    config.read_timeout = Some(CALL_TIMEOUT);
    config.write_timeout = Some(CALL_TIMEOUT);
    let (renewals, renewed) = Renewals::new();
    let client = ClientBuilder::try_from(config)?.with_layer(&renewals).build();
    let Options { lease, namespace, identity, .. } = options;
    lead(client, renewed, Candidate { lease, namespace, identity }, shutdown).await
}

/// Who competes for which lease.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    lease: &'a str,
    namespace: &'a str,
    identity: &'a str,
}

/// Waits for the lease, whose renewals by this client are reported to `renewed`.
async fn lead(
    client: Client,
    mut renewed: watch::Receiver<Instant>,
    Candidate { lease, namespace, identity }: Candidate<'_>,
    shutdown: &CancellationToken,
) -> Result<Option<Leadership>, Error> {
    let manager = LeaseManagerBuilder::new(client, lease)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_field_manager(format!("rota-operator-lease-{identity}"))
        .with_duration(LEASE_SECONDS)
        .with_grace(RENEW_BEFORE_SECONDS)
        .build()
        .await?;
    let (mut held, keeper) = manager.watch().await;
    tracing::info!(lease, "waiting for the leader lease");
    while !*held.borrow_and_update() {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            changed = held.changed() => if changed.is_err() { return Err(Error::LeaseLost) },
        }
    }
    tracing::info!(lease, identity, "acquired the leader lease");
    let lost = CancellationToken::new();
    let (release, mut released) = oneshot::channel();
    let observer = lost.clone();
    let task = spawn("lease", OnExit::Done, async move {
        loop {
            // The manager retries for as long as no API server answers, and meanwhile another operator has taken the lease.
            let expiry = *renewed.borrow_and_update() + Duration::from_secs(LEASE_SECONDS);
            tokio::select! {
                biased;
                Ok(()) = renewed.changed() => {}
                () = sleep_until(expiry) => {
                    tracing::error!("the leader lease was not renewed in time");
                    observer.cancel();
                    return;
                }
                changed = held.changed() => if changed.is_err() || !*held.borrow_and_update() {
                    observer.cancel();
                    return;
                },
                _ = &mut released => break,
            }
        }
        // The manager releases the lease when its receiver is dropped.
        drop(held);
        let _ = keeper.await;
    });
    Ok(Some(Leadership { lost, release: Some(release), task: Some(task) }))
}

/// Creates the lease with its labels. It has no owner: it outlives the Deployment with the annotations of `lease_record.rs`.
async fn create(client: &Client, options: &Options) -> Result<(), kube::Error> {
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(options.lease.clone()),
            labels: Some(cluster::labels("operator")),
            ..Default::default()
        },
        ..Default::default()
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    leases.patch(&options.lease, &PatchParams::apply(MANAGER), &Patch::Apply(&lease)).await?;
    Ok(())
}

/// Reports when changes of the lease were requested that succeeded. A layer of a client that makes no other changes.
#[derive(Debug, Clone)]
struct Renewals(watch::Sender<Instant>);

impl Renewals {
    fn new() -> (Self, watch::Receiver<Instant>) {
        let (sender, receiver) = watch::channel(Instant::now());
        (Self(sender), receiver)
    }
}

impl<S> tower::Layer<S> for Renewals {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, renewals: self.clone() }
    }
}

#[derive(Debug, Clone)]
struct Observed<S> {
    inner: S,
    renewals: Renewals,
}

impl<S, B> tower::Service<Request<Body>> for Observed<S>
where
    S: tower::Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The lease is valid from when its renewal was written, which is later.
        let (changes, at) = (request.method() == Method::PATCH, Instant::now());
        let (answered, Renewals(renewals)) = (self.inner.call(request), self.renewals.clone());
        Box::pin(async move {
            let response = answered.await?;
            if changes && response.status().is_success() {
                renewals.send_replace(at);
            }
            Ok(response)
        })
    }
}

impl Leadership {
    /// Completes when the lease is lost.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Releases the lease, so that another operator takes over immediately.
    pub(crate) async fn release(mut self) {
        self.release = None;
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, task).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tower::{BoxError, Layer, Service};

    use super::*;

    /// An API server that has one lease, and does not answer after this many changes.
    #[derive(Debug, Clone)]
    struct ApiServer {
        lease: Arc<Mutex<Value>>,
        changes: Arc<AtomicUsize>,
        last: usize,
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
                if request.method() == Method::PATCH {
                    if server.changes.fetch_add(1, Ordering::Relaxed) >= server.last {
                        std::future::pending::<()>().await;
                    }
                    let patch = request.into_body().collect_bytes().await?;
                    let patch: Value = serde_json::from_slice(&patch)?;
                    for (field, value) in patch["spec"].as_object().into_iter().flatten() {
                        server.lease.lock()["spec"][field] = value.clone();
                    }
                }
                let lease = serde_json::to_vec(&*server.lease.lock())?;
                Ok(Response::new(Body::from(lease)))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leader_without_an_api_server_ends() {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "leader", "namespace": "rota"}, "spec": {},
        });
        let server = ApiServer { lease: Arc::new(Mutex::new(lease)), changes: Arc::default(), last: 5 };
        let changes = Arc::clone(&server.changes);
        let (renewals, renewed) = Renewals::new();
        let client = Client::new(renewals.layer(server), "rota");
        let candidate = Candidate { lease: "leader", namespace: "rota", identity: "me" };
        let led = lead(client, renewed, candidate, &CancellationToken::new()).await.unwrap().unwrap();
        let began = Instant::now();
        // Of the clock of the test, on which an hour takes no time.
        let lost = tokio::time::timeout(Duration::from_secs(3600), led.lost()).await;
        lost.expect("the operator remains the leader");
        assert!(changes.load(Ordering::Relaxed) > 5, "it was renewed while there was an API server");
        assert!(began.elapsed() >= Duration::from_secs(LEASE_SECONDS), "it gave up too early");
    }
}
