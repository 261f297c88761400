//! Wiring of the operator: leader election, startup order, background tasks, graceful shutdown.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use rota_crds::resource::{Agent, Schedule, Task, Workflow, WorkflowTemplate};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::control_plane::{self, CaFile};
use crate::controller::{Source, Stores, Synced};
use crate::health::{self, Health};
use crate::kind::{Guarded, Kind};
use crate::stored::{self, StoredKind};
use crate::{Error, Options, agent, controller, lease, lease_record, pods, task, trust, workflow};

/// Pending triggers per scope; senders wait when it is full.
pub(crate) const TRIGGER_QUEUE_SIZE: usize = 1024;
/// Time allowed for reconciliations under way on shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Time to wait for the custom resources on startup: charts are installed in any order.
const CRD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two waits for those that are not needed by all.
const CRD_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Time to wait for first lists after which the wait is logged.
const LONG_WAIT: Duration = Duration::from_secs(30);
/// Silence after which a call to the cluster is abandoned. Longer than a watch may be silent.
const KUBE_READ_TIMEOUT: Duration = Duration::from_secs(295);

impl Options {
    /// Runs the operator until `shutdown`, or until another operator is the leader.
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
            ended = self.run_as_leader(Arc::clone(&health), shutdown.clone()) => ended,
            Err(error) = serving => Err(error),
            never = health.export() => match never {},
        };
        health.export_last();
        ended
    }

    async fn run_as_leader(self, health: Arc<Health>, shutdown: CancellationToken) -> Result<(), Error> {
        let mut config = kube::Config::infer().await?;
        config.read_timeout = Some(KUBE_READ_TIMEOUT);
        let client = Client::try_from(config.clone())?;
        let options = Arc::new(self);
        let Some(leadership) = lease::acquire(&config, &client, &options, &shutdown).await? else {
            return Ok(());
        };
        health.leads();
        let ended = tokio::select! {
            ended = operate(client, options, health, shutdown) => ended,
            () = leadership.lost() => Err(Error::LeaseLost),
        };
        leadership.release().await;
        ended
    }
}

/// Runs everything that only the leader does.
async fn operate(
    client: Client,
    options: Arc<Options>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let authority = tokio::select! {
        authority = trust::ensure_eventually(&client, &options) => authority?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let ca = CaFile::new(&authority)?;
    let control = control_plane::client(&options, &ca)?;
    let (renewed, authority) = watch::channel(authority);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let cluster = namespaces.get_metadata(&options.namespace).await?.uid().unwrap_or_default();
    let pods_recorded_since = lease_record::pods_recorded_since(&client, &options).await?;
    let context = Context {
        control,
        pods_recorded_since,
        recorder: Context::recorder(&client, &options),
        kube: client,
        options,
        health,
        authority,
        cluster: cluster.into(),
        store: Arc::default(),
        waits: Arc::default(),
        waiting_workflows: Arc::default(),
        waiting_schedules: Arc::default(),
    };
    lease_record::read(&context).await?;
    wait_for_crd::<Agent>(&context).await?;
    wait_for_crd::<Task>(&context).await?;
    // Stops all parts: on shutdown, and when one of them exits.
    let stop = shutdown.child_token();
    let parts = start(&context, ca, renewed, &stop);
    let mut parts = Box::pin(try_join_all(parts));
    tokio::select! {
        ended = &mut parts => {
            stop.cancel();
            ended.map(drop)
        }
        () = shutdown.cancelled() => {
            tracing::info!("shutting down, finishing reconciliations");
            match timeout(SHUTDOWN_GRACE, parts).await {
                Ok(ended) => ended.map(drop),
                Err(_) => Ok(()),
            }
        }
    }
}

type Part = BoxFuture<'static, Result<(), Error>>;

/// Starts the background tasks of the leader. Returns a handle of each.
fn start(
    context: &Context,
    ca: CaFile,
    renewed: watch::Sender<String>,
    stop: &CancellationToken,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut start = |name: &'static str, part: Part| {
        let handle = spawn(name, OnExit::Done, part);
        parts.push(async move { handle.await.unwrap_or(Err(Error::Ended(name))) }.boxed());
    };
    start("trust", control_plane::renew_certificates(context.clone(), ca, renewed, stop.clone()).boxed());

    start("lease record", lease_record::keep(context.clone(), stop.clone()).boxed());
    start("first contact", control_plane::first_contact(context.clone(), stop.clone()).boxed());

    let scopes = scopes(context);
    let tasks = scoped::<Task>(context, &scopes);
    let agents = scoped::<Agent>(context, &scopes);
    let task_stores = stores(&tasks);
    let synced_tasks = synced(&tasks);
    let listed_tasks: Vec<_> = tasks.iter().map(|scope| scope.source.synced.clone()).collect();
    let synced_agents = synced(&agents);
    let agent_triggers: Vec<_> = agents.iter().map(|scope| scope.trigger.clone()).collect();

    let mut pod_stores = Vec::new();
    for (scope, trigger) in scopes.iter().zip(&agent_triggers) {
        let (known, writer) = pods::WorkerPods::new(scope.clone());
        pod_stores.push(known.clone());
        let (pods, trigger) = (api(context, scope.as_ref()), trigger.clone());
        let watch = pods::watch(context.clone(), pods, (known, writer), trigger, stop.clone());
        start("pods", watch.map(Ok).boxed());
    }
    let task_parts = task::Parts::new(context.clone(), Arc::clone(&task_stores));
    let agent_parts = agent::Parts::new(
        context.clone(),
        agents.iter().map(|scope| scope.source.store.clone()).collect(),
        pod_stores.clone(),
        Arc::clone(&task_stores),
    );
    for Scoped { source, triggers, .. } in tasks {
        let (reconciler, triggers) = (Arc::clone(&task_parts.tasks), ReceiverStream::new(triggers));
        let run = controller::run("task", source, reconciler, triggers, context.clone(), stop.clone());
        start("tasks", run.map(Ok).boxed());
    }
    // The pods and tasks of an agent are in its namespace: a scope does not wait for the others.
    let lists = pod_stores.iter().zip(listed_tasks).map(|(pods, tasks)| [pods.synced.clone(), tasks]);
    for ((Scoped { source, triggers, .. }, lists), scope) in agents.into_iter().zip(lists).zip(scopes.clone())
    {
        let (reconciler, context, stop) = (Arc::clone(&agent_parts.agents), context.clone(), stop.clone());
        let lists: Synced = lists.into_iter().collect();
        let run = async move {
            // Before the pods are known, every pool would look empty, and before the tasks are, none would seem to have a resource.
            if wait_for_lists(&lists, scope.as_deref(), &stop).await {
                let triggers = ReceiverStream::new(triggers);
                controller::run("agent", source, reconciler, triggers, context, stop).await;
            }
        };
        start("agents", run.map(Ok).boxed());
    }
    let workflows = scoped::<Workflow>(context, &scopes);
    let synced_workflows = synced(&workflows);
    let workflow_stores = stores(&workflows);
    let workflow_parts = workflow::Parts::new(context.clone(), Arc::clone(&workflow_stores));
    for Scoped { source, triggers, .. } in workflows {
        let (reconciler, context, stop) =
            (Arc::clone(&workflow_parts.workflows), context.clone(), stop.clone());
        let run = async move {
            if is_served::<Workflow>(&context, &stop).await {
                let triggers = ReceiverStream::new(triggers);
                controller::run("workflow", source, reconciler, triggers, context, stop).await;
            }
        };
        start("workflows", run.map(Ok).boxed());
    }
    start(
        "workflow sweep",
        workflow_parts.run(context.clone(), workflow_stores, synced_workflows, stop.clone()).boxed(),
    );
    start_stored::<WorkflowTemplate>(context, &scopes, stop, &mut start);
    start_stored::<Schedule>(context, &scopes, stop, &mut start);
    start("task streams", task_parts.run(context.clone(), task_stores, synced_tasks, stop.clone()).boxed());
    start(
        "agent streams",
        agent_parts.run(context.clone(), agent_triggers, synced_agents, stop.clone()).boxed(),
    );
    parts
}

/// Starts the background tasks of a kind of which the control plane keeps records.
fn start_stored<K: StoredKind>(
    context: &Context,
    scopes: &[Option<String>],
    stop: &CancellationToken,
    start: &mut impl FnMut(&'static str, Part),
) {
    let objects = scoped::<K>(context, scopes);
    let parts = stored::Parts::new(context.clone(), stores(&objects));
    for Scoped { source, triggers, .. } in objects {
        let (reconciler, context, stop) = (Arc::clone(&parts.objects), context.clone(), stop.clone());
        let run = async move {
            if is_served::<K>(&context, &stop).await {
                let triggers = ReceiverStream::new(triggers);
                controller::run(K::NAME, source, reconciler, triggers, context, stop).await;
            }
        };
        start(K::COLLECTION, run.map(Ok).boxed());
    }
    let (context, stop) = (context.clone(), stop.clone());
    let sweep = async move {
        match is_served::<K>(&context, &stop).await {
            true => parts.run(stop).await,
            false => Ok(()),
        }
    };
    start(K::SWEEP.0, sweep.boxed());
}

/// Waits for the first lists that the agents of a scope need. Returns false at a shutdown.
async fn wait_for_lists(lists: &Synced, scope: Option<&str>, stop: &CancellationToken) -> bool {
    let mut wait = pin!(lists.wait(stop));
    match timeout(LONG_WAIT, &mut wait).await {
        Ok(arrived) => arrived,
        Err(_) => {
            let namespace = scope.unwrap_or("all namespaces");
            tracing::warn!(namespace, "agents wait for the first lists of pods and tasks");
            wait.await
        }
    }
}

/// Returns the scopes to watch: the configured namespaces, or one for the whole cluster.
fn scopes(context: &Context) -> Vec<Option<String>> {
    let watched = &context.options.watch_namespaces;
    if watched.is_empty() { vec![None] } else { watched.iter().cloned().map(Some).collect() }
}

fn api<K>(context: &Context, scope: Option<&String>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(context.kube.clone(), namespace),
        None => Api::all(context.kube.clone()),
    }
}

/// Objects of one kind in one scope, with the channel that triggers their reconciliation.
struct Scoped<K: Kind> {
    source: Source<K>,
    trigger: mpsc::Sender<ObjectRef<Guarded<K>>>,
    triggers: mpsc::Receiver<ObjectRef<Guarded<K>>>,
}

fn scoped<K>(context: &Context, scopes: &[Option<String>]) -> Vec<Scoped<K>>
where
    K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    let scoped = scopes.iter().map(|scope| {
        let (trigger, triggers) = mpsc::channel(TRIGGER_QUEUE_SIZE);
        Scoped { source: Source::new(api(context, scope.as_ref())), trigger, triggers }
    });
    scoped.collect()
}

fn stores<K: Kind>(scopes: &[Scoped<K>]) -> Stores<K> {
    scopes.iter().map(|scope| (scope.source.store.clone(), scope.trigger.clone())).collect()
}

fn synced<K: Kind>(scopes: &[Scoped<K>]) -> Synced {
    scopes.iter().map(|scope| scope.source.synced.clone()).collect()
}

/// Waits until the cluster serves a kind, without a limit: its definition may be installed later, and other kinds do not need it.
/// Returns false at a shutdown.
async fn is_served<K>(context: &Context, stop: &CancellationToken) -> bool
where
    K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    loop {
        match stop.run_until_cancelled(wait_for_crd::<K>(context)).await {
            None => return false,
            Some(Ok(())) => return true,
            Some(Err(error)) => tracing::warn!(%error, "waiting for the definition of a resource"),
        }
        stop.run_until_cancelled(tokio::time::sleep(CRD_RETRY_INTERVAL)).await;
    }
}

/// Waits until the cluster serves a kind.
async fn wait_for_crd<K>(context: &Context) -> Result<(), Error>
where
    K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    use backon::{ExponentialBuilder, Retryable};
    let scope = scopes(context).into_iter().next().flatten();
    let objects: Api<Guarded<K>> = api(context, scope.as_ref());
    let list_one = || async { objects.list_metadata(&ListParams::default().limit(1)).await.map(drop) };
    let delays = ExponentialBuilder::default().without_max_times().with_total_delay(Some(CRD_TIMEOUT));
    // The response for an unknown kind is a bare page, without the reason that missing objects have.
    let missing = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    match list_one.retry(delays).when(missing).await {
        Err(error) if missing(&error) => Err(Error::NoCrd { kind: K::kind(&()).into_owned() }),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests;
