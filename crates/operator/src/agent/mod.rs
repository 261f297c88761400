//! Reconciler of `Agent` resources: each is a pool of worker pods that grows and shrinks with its demand.

mod accepted;
mod announce;
mod apply;
mod authority;
mod build;
mod create;
mod demand;
mod dereference;
mod ended;
mod finalize;
mod history;
mod network;
mod observation;
mod origin;
mod pod;
mod report;
mod requeue;
mod start_failure;
mod state;
mod states;
mod status;
mod validate;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use rota_crds::resource::{Agent, Task};
use rota_proto::names;
use rota_telemetry::clock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::authority::Authorities;
use self::build::Plan;
use self::demand::{DemandCache, DemandSnapshot};
use self::dereference::WorkerPod;
use self::origin::Origin;
pub(crate) use self::pod::PodSpecInput;
use self::pod::TaskPod;
use self::start_failure::StartFailure;
use self::state::{AgentState, Start};
use self::states::States;
use self::status::StatusInput;
use crate::context::Context;
use crate::controller::{Reconciler, Synced};
use crate::error::ReconcileError;
use crate::kind::Guarded;
use crate::pods::WorkerPods;
use crate::task::{Stores, is_final_phase};

/// Delay before a retry while no demand was received yet.
const DEMAND_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Duration of a failure after which the agent's conditions are unknown: a restart of the control plane takes less.
const FAILING_STATUS_DELAY: Duration = Duration::from_secs(20);
/// Interval at which a rejected spec is submitted again: the control plane may have been upgraded.
const REJECTION_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Time that sidecars have to end once their worker has ended: the grace period of the pod is the worker's.
const SIDECAR_GRACE_SECONDS: u32 = 30;
/// Grace period of pods whose workers are not connected and run nothing.
const ABANDON_GRACE_SECONDS: u32 = 30;

/// Reconciler of `Agent` resources, with a state of each.
pub(crate) struct Agents {
    context: Context,
    demand: Arc<DemandCache>,
    pods: Vec<WorkerPods>,
    tasks: Stores,
    authorities: Authorities,
    deleted: mpsc::Sender<()>,
    stores: Vec<Store<Guarded<Agent>>>,
    states: States,
}

/// Reconciler of `Agent` resources, with the background tasks that it needs.
pub(crate) struct Parts {
    pub agents: Arc<Agents>,
    demand: Arc<DemandCache>,
    deleted: mpsc::Receiver<()>,
}

impl Parts {
    pub(crate) fn new(
        context: Context,
        stores: Vec<Store<Guarded<Agent>>>,
        pods: Vec<WorkerPods>,
        tasks: Stores,
    ) -> Self {
        let demand = Arc::new(DemandCache::default());
        let (sender, deleted) = mpsc::channel(1);
        let agents = Agents {
            context,
            demand: Arc::clone(&demand),
            pods,
            tasks,
            authorities: Authorities::default(),
            deleted: sender,
            stores,
            states: States::default(),
        };
        Self { agents: Arc::new(agents), demand, deleted }
    }

    /// Watches demand and unregisters agents whose resource was deleted, until `shutdown`.
    pub(crate) async fn run(
        self,
        context: Context,
        triggers: Vec<mpsc::Sender<ObjectRef<Guarded<Agent>>>>,
        synced: Synced,
        shutdown: CancellationToken,
    ) -> Result<(), crate::Error> {
        let stores = self.agents.stores.clone();
        context.health.watch_agents(stores.clone());
        let finalize = finalize::run(context.clone(), stores.clone(), synced, self.deleted, shutdown.clone());
        let demand = demand::watch(context, self.demand, stores, triggers, shutdown);
        tokio::select! {
            ended = demand => ended,
            () = finalize => Ok(()),
        }
    }
}

impl Reconciler<Agent> for Agents {
    async fn reconcile(&self, agent: &Agent) -> Result<Action, ReconcileError> {
        if agent.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let name = full_name(agent);
        let Some(state) = self.states.of(agent, &self.stores) else { return Ok(Action::await_change()) };
        // Never contended: no object is reconciled twice at a time.
        let mut state = state.lock().await;
        let reconciled = self.reconcile_agent(agent, &name, &mut state).await;
        if let Err(ReconcileError::Control(error)) = &reconciled {
            state.history.control_plane_unavailable();
            // The agent was deleted there, or the store is another one.
            if error.code == rota_client::Code::NotFound {
                state.registered = None;
            }
        }
        match &reconciled {
            Ok(_) => state.failing_since = None,
            Err(error) => self.report_failing(agent, &mut state, error).await,
        }
        reconciled
    }

    fn deleted(&self, agent: &Agent) {
        self.states.remove(agent);
        self.forget(&agent.namespace().unwrap_or_default(), &agent.name_any());
    }

    fn listed(&self) {
        for known in self.states.remove_missing(&self.stores) {
            self.forget(&known.namespace, &known.name);
        }
        // One that this operator has never reconciled has no state.
        self.notify_deleted();
    }
}

impl Agents {
    /// Forgets what is kept, besides the state, of an agent that exists no longer.
    fn forget(&self, namespace: &str, name: &str) {
        // Without its state, no creation is known of pods that the watch has not delivered, and they would be ended.
        self.pods.iter().for_each(|pods| pods.forget_of(namespace, name));
        self.authorities.forget(namespace);
        self.notify_deleted();
    }

    fn notify_deleted(&self) {
        // A pending signal suffices.
        let _ = self.deleted.try_send(());
    }

    async fn reconcile_agent(
        &self,
        agent: &Agent,
        name: &str,
        state: &mut AgentState,
    ) -> Result<Action, ReconcileError> {
        let namespace = agent.namespace().unwrap_or_default();
        if let Some(loss) = state.begin_generation(self.context.store.generation(), agent.status.is_some()) {
            let note = format!("{}; registering the agent again", loss.describe());
            self.context.event(agent, EventType::Warning, "ControlPlaneLostRecords", "Register", &note).await;
        }
        let checked = match validate::check(agent, &self.context.options.workers) {
            Ok(hash) => match self.register(agent, state).await? {
                None => Ok(hash),
                Some(rejected) => Err(rejected),
            },
            Err(invalid) => Err(invalid),
        };
        // Before the first response, no demand means nothing.
        let Some(mut demand) = self.demand.get(name) else {
            return Ok(Action::requeue(DEMAND_RETRY_INTERVAL));
        };
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let (mut pods, unknown) = self.observe(agent, state, &demand, now);
        let removed = self.end_unrecorded(agent, name, &unknown, &state.history).await;
        let recorded = self.record_creations(agent, state).await;
        let ended = self.handle_ended(agent, state, &pods, now).await;
        let rejected = checked.as_ref().err().cloned();
        let effective = state.accepted.effective(agent, checked, &self.context.options.workers);
        let Some((agent, hash)) = effective.as_ref().map(|(agent, hash)| (agent.as_ref(), hash.as_str()))
        else {
            let input = StatusInput {
                pods: &pods,
                demand: &demand,
                hash: "",
                rejected: rejected.as_ref(),
                start_failure: None,
            };
            self.write_status(agent, state, &input, now).await?;
            return Ok(Action::requeue(REJECTION_RETRY_INTERVAL));
        };
        self.mark_outdated(agent, &mut pods);
        let network = network::publish(&self.context, agent, state, !pods.is_empty()).await;
        // No pod starts without its restrictions, or while none can be recorded; the others are cared for.
        let may_start =
            network.is_ok() && recorded.is_ok() && state.start_delay(hash, Instant::now()).is_zero();
        state.pause_isolated(&mut demand, Instant::now());
        demand.last_try = state.observe_isolation(hash, &pods, Instant::now());
        let plan = build::plan(&agent.spec, hash, &pods, &demand, may_start);
        let authority = self.context.authority.borrow().clone();
        self.authorities.publish(&self.context, &namespace, &authority).await?;
        let executed = self.execute(agent, name, state, &mut pods, &plan, hash).await;
        // Also what was created before a failure may join. A pod whose end was not reported must not be taken for one without an end,
        // nor may one that could not be drained lose its session.
        if ended.is_ok() && removed.is_ok() {
            self.announce(agent, name, state, &pods).await?;
        }
        executed.and(recorded).and(network).and(ended).and(removed)?;
        let start_failure = self.start_failure(state, &pods, hash);
        let (rejected, failure) = (rejected.as_ref(), start_failure.as_ref());
        let input = StatusInput { pods: &pods, demand: &demand, hash, rejected, start_failure: failure };
        self.write_status(agent, state, &input, now).await?;
        self.report_start_failures(agent, name, state, &pods, failure).await?;
        let delay = requeue::after(agent, state, self.status_interval(), &pods, &unknown, hash);
        Ok(Action::requeue(if rejected.is_some() { delay.min(REJECTION_RETRY_INTERVAL) } else { delay }))
    }

    /// Returns the pods of an agent that the operator has created, and those of which it is unknown who has.
    fn observe(
        &self,
        agent: &Agent,
        state: &mut AgentState,
        demand: &DemandSnapshot,
        now: Timestamp,
    ) -> (Vec<WorkerPod>, Vec<WorkerPod>) {
        let known = (&state.creations, self.context.pods_recorded_since);
        let mut pods = dereference::worker_pods(agent, &self.pods, demand, known, now);
        for index in state.history.observe(&mut pods, Instant::now()) {
            if pods[index].origin == Origin::Operator {
                state.worker_joined(Start::of(&pods[index]), Instant::now());
            }
        }
        let (pods, unknown) = dereference::by_origin(pods);
        state.creations.retain(&pods);
        (pods, unknown)
    }

    /// Writes that an agent cannot be reconciled: immediately if it has no status, otherwise once the failure lasts.
    async fn report_failing(&self, agent: &Agent, state: &mut AgentState, error: &ReconcileError) {
        let since = *state.failing_since.get_or_insert_with(Instant::now);
        if agent.status.is_some() && since.elapsed() < FAILING_STATUS_DELAY {
            return;
        }
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let (reason, message) = error.condition();
        let built = status::unknown(agent, reason, &message, now);
        if agent.status.as_ref() != Some(&built)
            && let Err(error) = self.context.write_status::<Agent>("agent", &agent.metadata, &built).await
        {
            tracing::warn!(%error, agent = agent.name_any(), "failed to write the status of a failing agent");
        }
    }

    /// Registers the agent if its spec or labels changed. Returns the reason if the control plane rejects it.
    async fn register(
        &self,
        agent: &Agent,
        state: &mut AgentState,
    ) -> Result<Option<StartFailure>, ReconcileError> {
        let mut hasher = DefaultHasher::new();
        agent.labels().hash(&mut hasher);
        let version = (agent.metadata.generation, hasher.finish());
        if state.registered == Some(version) {
            return Ok(None);
        }
        if let Some(rejected) = state.recent_rejection(version, Instant::now()) {
            return Ok(Some(rejected.clone()));
        }
        let rejected = apply::register(&self.context, agent).await?;
        match &rejected {
            None => state.registered = Some(version),
            Some(rejected) => state.rejected = Some((version, rejected.clone(), Instant::now())),
        }
        Ok(rejected)
    }

    /// Marks pods of isolated tasks that would be created differently now.
    fn mark_outdated(&self, agent: &Agent, pods: &mut [WorkerPod]) {
        let (namespace, options) = (agent.namespace().unwrap_or_default(), &self.context.options.workers);
        let stuck = |pod: &&mut WorkerPod| pod.is_starting() && pod.start_failure.is_some();
        for pod in pods.iter_mut().filter(stuck) {
            let Some(id) = pod.task.as_deref() else { continue };
            let resource = self.task(&namespace, id);
            let task = Some(TaskPod { id, resource: resource.as_ref() });
            let hash = PodSpecInput { agent, options, task }.hash();
            pod.is_outdated = hash.is_ok_and(|hash| hash != pod.hash);
        }
    }

    /// Executes a plan. Created pods are added to `pods`.
    async fn execute(
        &self,
        agent: &Agent,
        name: &str,
        state: &mut AgentState,
        pods: &mut Vec<WorkerPod>,
        plan: &Plan,
        hash: &str,
    ) -> Result<(), ReconcileError> {
        let namespace = agent.namespace().unwrap_or_default();
        for pod in pods.iter().filter(|pod| plan.delete.contains(&pod.name)) {
            self.delete_pod(&namespace, state, pod, Some(SIDECAR_GRACE_SECONDS)).await?;
        }
        for pod in pods.iter().filter(|pod| plan.abandon.contains(&pod.name)) {
            // One that may run tasks has the time of its agent to finish them, should its connection come back.
            let grace = (!state.history.may_run_tasks(pod)).then_some(ABANDON_GRACE_SECONDS);
            self.delete_pod(&namespace, state, pod, grace).await?;
        }
        for (index, worker) in plan.drain_idle.iter().enumerate() {
            let is_tried = plan.for_isolation && index == 0;
            let reason = if is_tried { "tasks wait for one that isolates attempts" } else { "idle" };
            apply::drain(&self.context, name, worker, true, reason).await?;
        }
        for worker in &plan.drain {
            apply::drain(&self.context, name, worker, false, "created from an older spec").await?;
        }
        self.start_workers(agent, state, pods, plan, hash).await
    }

    /// Deletes a pod, and forgets one that does not exist and was not delivered.
    async fn delete_pod(
        &self,
        namespace: &str,
        state: &mut AgentState,
        pod: &WorkerPod,
        grace_seconds: Option<u32>,
    ) -> Result<(), ReconcileError> {
        let is_awaited = self.awaits(&pod.uid);
        let was_there = apply::delete_pod(&self.context, namespace, pod, grace_seconds).await?;
        if is_awaited && !was_there {
            self.forget_pod(state, &pod.uid);
        }
        Ok(())
    }

    /// Returns whether a created pod is not delivered yet.
    fn awaits(&self, uid: &str) -> bool {
        self.pods.iter().any(|pods| pods.awaits(uid))
    }

    /// Forgets a pod that was deleted. A list that was read after that lacks it, and the watch from there on does not name it.
    fn forget_pod(&self, state: &mut AgentState, uid: &str) {
        state.creations.forget(uid);
        self.pods.iter().for_each(|pods| pods.forget(uid));
    }

    /// Returns the resource of a task, if it has one that has not ended: another task may have the id of one that was refused.
    fn task(&self, namespace: &str, id: &str) -> Option<Task> {
        let matches = |task: &Guarded<Task>| {
            task.uid().as_deref() == Some(id) && task.namespace().as_deref() == Some(namespace)
        };
        let found = self.tasks.iter().find_map(|(store, _)| store.find(matches))?;
        let has_ended =
            |task: &&Task| task.status.as_ref().is_some_and(|status| is_final_phase(status.phase));
        found.0.as_ref().ok().filter(|task| !has_ended(task)).cloned()
    }
}

fn full_name(agent: &Agent) -> String {
    names::agent(&agent.namespace().unwrap_or_default(), agent.name_any())
}

#[cfg(test)]
mod tests;
