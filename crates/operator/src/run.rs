//! Puts the operator together, runs it, and ends it in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use rota_client::Token;
use rota_crds::resource::{Agent, Task};
use rota_proto::v1;
use rota_telemetry::{OnExit, spawn};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::cluster::{AGENT, ROLE};
use crate::context::Context;
use crate::controller::{Guarded, Kind, Source};
use crate::health::{self, Health};
use crate::{Error, Options, agent, controller, lead, leaving, task, trust};

/// Objects that may wait to be looked at, a scope; whoever wakes more waits.
const WOKEN: usize = 1024;
/// For what is being done when the operator is told to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long the custom resources may be missing at the start: charts are installed in any order.
const CRD_PATIENCE: Duration = Duration::from_secs(60);
/// A call to the cluster on which nothing was heard for so long is given up. Longer than a watch may be silent.
const KUBE_TIMEOUT: Duration = Duration::from_secs(295);

impl Options {
    /// Runs until `shutdown`, or until another operator leads.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let health = Arc::new(Health::default());
        let serving = self.http_listen.map(|addr| health::serve(addr, Arc::clone(&health), shutdown.clone()));
        let serving = async {
            match serving {
                Some(serving) => serving.await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = self.lead(Arc::clone(&health), shutdown.clone()) => ended,
            Err(error) = serving => Err(error),
            never = health.send() => match never {},
        };
        health.send_last();
        ended
    }

    async fn lead(self, health: Arc<Health>, shutdown: CancellationToken) -> Result<(), Error> {
        let mut config = kube::Config::infer().await?;
        config.read_timeout = Some(KUBE_TIMEOUT);
        let client = Client::try_from(config)?;
        let options = Arc::new(self);
        let Some(lead) = lead::acquire(&client, &options, &shutdown).await? else { return Ok(()) };
        health.leads();
        let ended = tokio::select! {
            ended = work(client, options, health, shutdown) => ended,
            () = lead.lost() => Err(Error::LeaseLost),
        };
        lead.give_back().await;
        ended
    }
}

/// What the leader does.
async fn work(
    client: Client,
    options: Arc<Options>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let authority = trust::ensure(&client, &options).await?;
    // The client reads what to trust from a file, anew for each connection.
    let trusted = Trusted::new(&authority)?;
    let control = control(&options, &trusted)?;
    let (renewed, authority) = watch::channel(authority);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let cluster = namespaces.get_metadata(&options.namespace).await?.uid().unwrap_or_default();
    let context = Context {
        control,
        recorder: Context::recorder(&client, &options),
        kube: client,
        options,
        health,
        authority,
        cluster: cluster.into(),
    };
    served::<Agent>(&context, "Agent").await?;
    served::<Task>(&context, "Task").await?;
    tokio::select! {
        there = reachable(&context) => there?,
        () = shutdown.cancelled() => return Ok(()),
    }

    // Everything below ends by this: when we are told to, and when a part of it ended by itself.
    let stop = shutdown.child_token();
    let mut parts = Vec::new();
    let mut start = |name: &'static str, part: futures::future::BoxFuture<'static, Result<(), Error>>| {
        parts.push(async move { spawn(name, OnExit::Done, part).await.unwrap_or(Err(Error::Ended(name))) });
    };
    start("trust", trust(context.clone(), trusted, renewed, stop.clone()).boxed());

    let scopes = scopes(&context);
    let tasks = scoped::<Task>(&context, &scopes);
    let agents = scoped::<Agent>(&context, &scopes);
    let task_stores: task::Stores =
        tasks.iter().map(|scope| (scope.source.store.clone(), scope.waker.clone())).collect();
    let agent_stores: Vec<_> = agents.iter().map(|scope| scope.source.store.clone()).collect();
    let agent_wakers: Vec<_> = agents.iter().map(|scope| scope.waker.clone()).collect();

    let mut pods = Vec::new();
    for scope in &scopes {
        let (store, writer) = reflector::store();
        pods.push(store);
        let woken = agent_wakers.clone();
        start(
            "pods",
            watch_pods(context.clone(), scope.clone(), writer, woken, stop.clone()).map(Ok).boxed(),
        );
    }
    let task_parts = task::Parts::new(context.clone(), Arc::clone(&task_stores));
    let agent_parts = agent::Parts::new(context.clone(), pods.clone(), Arc::clone(&task_stores));
    for Scoped { source, woken, .. } in tasks {
        let reconciler = Arc::clone(&task_parts.tasks);
        let run = controller::run(
            "task",
            source,
            reconciler,
            ReceiverStream::new(woken),
            context.clone(),
            stop.clone(),
        );
        start("tasks", run.map(Ok).boxed());
    }
    for Scoped { source, woken, .. } in agents {
        let (reconciler, context, stop, pods) =
            (Arc::clone(&agent_parts.agents), context.clone(), stop.clone(), pods.clone());
        let run = async move {
            // Without its pods every pool would look empty.
            if synced(&pods, &stop).await {
                controller::run("agent", source, reconciler, ReceiverStream::new(woken), context, stop).await;
            }
        };
        start("agents", run.map(Ok).boxed());
    }
    start("task streams", task_parts.run(context.clone(), task_stores, stop.clone()).boxed());
    start(
        "agent streams",
        agent_parts.run(context.clone(), agent_stores, agent_wakers, stop.clone()).boxed(),
    );

    let mut parts = Box::pin(try_join_all(parts.into_iter().map(|part| part.boxed())));
    tokio::select! {
        ended = &mut parts => {
            stop.cancel();
            ended.map(drop)
        }
        () = shutdown.cancelled() => {
            tracing::info!("finishing what is being done");
            match tokio::time::timeout(GRACE, parts).await {
                Ok(ended) => ended.map(drop),
                Err(_) => Ok(()),
            }
        }
    }
}

/// Where objects are looked for: in the namespaces that were named, or in all at once.
fn scopes(context: &Context) -> Vec<Option<String>> {
    let watched = &context.options.watch_namespaces;
    if watched.is_empty() { vec![None] } else { watched.iter().cloned().map(Some).collect() }
}

fn api<K>(context: &Context, scope: Option<&String>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(context.kube.clone(), namespace),
        None => Api::all(context.kube.clone()),
    }
}

type Waker<K> = mpsc::Sender<ObjectRef<Guarded<K>>>;

/// Objects of one kind, as one scope has them.
struct Scoped<K: Kind> {
    source: Source<K>,
    waker: Waker<K>,
    woken: mpsc::Receiver<ObjectRef<Guarded<K>>>,
}

fn scoped<K>(context: &Context, scopes: &[Option<String>]) -> Vec<Scoped<K>>
where
    K: Kind + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
{
    let scoped = scopes.iter().map(|scope| {
        let (waker, woken) = mpsc::channel(WOKEN);
        Scoped { source: Source::new(api(context, scope.as_ref())), waker, woken }
    });
    scoped.collect()
}

/// The authority's certificate as a file of our own.
struct Trusted {
    folder: TempDir,
}

impl Trusted {
    fn new(authority: &str) -> Result<Self, Error> {
        let trusted = Self { folder: tempfile::tempdir().map_err(Error::Folder)? };
        trusted.write(authority)?;
        Ok(trusted)
    }

    /// Another one, of which nobody reads a half.
    fn write(&self, authority: &str) -> Result<(), Error> {
        let new = self.folder.path().join("new");
        std::fs::write(&new, authority)
            .and_then(|()| std::fs::rename(new, self.path()))
            .map_err(Error::Folder)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }
}

fn control(options: &Options, trusted: &Trusted) -> Result<rota_client::Client, Error> {
    let mut client = rota_client::Options::new(&options.endpoint);
    client.token = Token::File(options.token_file.clone());
    client.ca = Some(trusted.path());
    client.user_agent = concat!("rota-operator/", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(rota_client::Client::new(client)?)
}

/// Waits until the cluster knows a kind.
async fn served<K>(context: &Context, kind: &'static str) -> Result<(), Error>
where
    K: Kind + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
{
    use backon::{ExponentialBuilder, Retryable};
    let scope = scopes(context).into_iter().next().flatten();
    let objects: Api<Guarded<K>> = api(context, scope.as_ref());
    let look = || async { objects.list_metadata(&ListParams::default().limit(1)).await.map(drop) };
    let patience = ExponentialBuilder::default().without_max_times().with_total_delay(Some(CRD_PATIENCE));
    // A kind that nobody ever heard of is answered with a bare page, without the reason that objects have.
    let missing = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    match look.retry(patience).when(missing).await {
        Err(error) if missing(&error) => Err(Error::NoCrd { kind }),
        other => Ok(other?),
    }
}

/// Waits for the control plane, however long: it may wait for the certificate that was just made.
async fn reachable(context: &Context) -> Result<(), Error> {
    use backon::{ExponentialBuilder, Retryable};
    let agents = || {
        let request =
            v1::ListAgentsRequest { parent: "namespaces/-".to_owned(), page_size: 1, ..Default::default() };
        async { context.control.list_agents(request).await.map(drop) }
    };
    let waits = ExponentialBuilder::default().with_max_delay(Duration::from_secs(5)).without_max_times();
    agents
        .retry(waits)
        .when(rota_client::Error::is_temporary)
        .notify(|error, _| tracing::info!(%error, "waiting for the control plane"))
        .await?;
    Ok(())
}

/// Keeps certificates and tokens, until `shutdown`.
async fn trust(
    context: Context,
    trusted: Trusted,
    renewed: watch::Sender<String>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let beat = context.health.loops.enter("trust", "Renews certificates before they end");
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(trust::INTERVAL) => {}
        }
        let round = beat.round();
        match trust::ensure(&context.kube, &context.options).await {
            Ok(authority) => {
                round.succeeded();
                if *renewed.borrow() != authority {
                    trusted.write(&authority)?;
                    renewed.send_replace(authority);
                }
            }
            Err(error) => {
                round.failed(&error);
                context.health.failed("trust", "ensure");
                tracing::warn!(%error, "certificates could not be looked after; it is tried again");
            }
        }
    }
}

/// Follows the pods of workers, and wakes their agents.
async fn watch_pods(
    context: Context,
    scope: Option<String>,
    writer: reflector::store::Writer<Pod>,
    woken: Vec<Waker<Agent>>,
    shutdown: CancellationToken,
) {
    let pods: Api<Pod> = api(&context, scope.as_ref());
    let config = watcher::Config::default().labels(&format!("{ROLE}=worker"));
    let changes = watcher(pods, config).default_backoff().modify(|pod| pod.metadata.managed_fields = None);
    let mut changes = Box::pin(changes.reflect(writer).take_until(shutdown.cancelled_owned()));
    while let Some(change) = changes.next().await {
        let pod = match change {
            Ok(Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) => pod,
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                context.health.failed("pods", "watch");
                tracing::warn!(%error, "watching pods failed; it is tried again");
                continue;
            }
        };
        if leaving::lingers(&pod)
            && let Err(error) = leaving::release(&context.kube, &pod).await
        {
            context.health.failed("pods", "release");
            tracing::warn!(%error, pod = pod.name_any(), "a pod of a namespace that may go could not be looked after");
        }
        let Some(agent) = pod.labels().get(AGENT) else { continue };
        let reference = ObjectRef::<Guarded<Agent>>::new(agent).within(&pod.namespace().unwrap_or_default());
        for scope in &woken {
            let _ = scope.send(reference.clone()).await;
        }
    }
}

/// Whether all pods have been heard of; false when we are to end before that.
async fn synced(pods: &[Store<Pod>], stop: &CancellationToken) -> bool {
    for store in pods {
        tokio::select! {
            () = stop.cancelled() => return false,
            ready = store.wait_until_ready() => if ready.is_err() { return false },
        }
    }
    true
}
