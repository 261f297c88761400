//! `Agent` resources: each is a pool of pods that grows and shrinks with its demand.

mod apply;
mod build;
mod demand;
mod dereference;
mod gone;
mod memory;
mod pod;
mod status;
mod validate;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use rota_crds::resource::{Agent, Task};
use rota_proto::names;
use rota_telemetry::clock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::apply::Started;
use self::build::Plan;
use self::demand::{Book, Heard};
use self::dereference::{Life, Member};
use self::memory::{Memory, STEADY};
use self::pod::{ForTask, Recipe};
use self::status::{Known, Trouble};
use crate::context::Context;
use crate::controller::{Failure, Guarded, Reconciler};
use crate::task::Stores;

/// Figures are written this often at most.
const PACE: Duration = Duration::from_secs(5);
/// A pool is looked at this often, in case a word was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// While workers are expected to join.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// Looks after agents.
pub(crate) struct Agents {
    context: Context,
    book: Arc<Book>,
    pods: Vec<Store<Pod>>,
    tasks: Stores,
    gone: mpsc::Sender<()>,
    memories: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Memory>>>>,
}

/// What belongs to agents beside their reconciler.
pub(crate) struct Parts {
    pub agents: Arc<Agents>,
    book: Arc<Book>,
    gone: mpsc::Receiver<()>,
}

impl Parts {
    pub(crate) fn new(context: Context, pods: Vec<Store<Pod>>, tasks: Stores) -> Self {
        let book = Arc::new(Book::default());
        let (sender, gone) = mpsc::channel(1);
        let agents = Agents {
            context,
            book: Arc::clone(&book),
            pods,
            tasks,
            gone: sender,
            memories: Mutex::default(),
        };
        Self { agents: Arc::new(agents), book, gone }
    }

    /// Listens for demand and takes back what lost its resource, until `shutdown`.
    pub(crate) async fn run(
        self,
        context: Context,
        stores: Vec<Store<Guarded<Agent>>>,
        woken: Vec<mpsc::Sender<ObjectRef<Guarded<Agent>>>>,
        shutdown: CancellationToken,
    ) -> Result<(), crate::Error> {
        let gone = gone::run(context.clone(), stores, self.gone, shutdown.clone());
        let demand = demand::run(context, self.book, woken, shutdown);
        tokio::select! {
            heard = demand => heard,
            () = gone => Ok(()),
        }
    }
}

impl Reconciler<Agent> for Agents {
    async fn reconcile(&self, agent: &Agent) -> Result<Action, Failure> {
        if agent.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let name = names::agent(&agent.namespace().unwrap_or_default(), agent.name_any());
        let memory = Arc::clone(self.memories.lock().entry(name.clone()).or_default());
        // Never contended: one object is never reconciled twice at once.
        let mut memory = memory.lock().await;
        self.look_after(agent, &name, &mut memory).await
    }

    fn deleted(&self, agent: &Agent) {
        let name = names::agent(&agent.namespace().unwrap_or_default(), agent.name_any());
        self.memories.lock().remove(&name);
        // One that is asked for already will do.
        let _ = self.gone.try_send(());
    }
}

impl Agents {
    async fn look_after(&self, agent: &Agent, name: &str, memory: &mut Memory) -> Result<Action, Failure> {
        let namespace = agent.namespace().unwrap_or_default();
        let checked = match validate::check(agent, &self.context.options.workers) {
            Ok(hash) => match self.register(agent, memory).await? {
                None => Ok(hash),
                Some(trouble) => Err(trouble),
            },
            Err(trouble) => Err(trouble),
        };
        // Until demand was heard once, having none means nothing.
        let Some(heard) = self.book.get(name) else { return Ok(Action::requeue(PACE / 10)) };
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut members = dereference::members(agent, &self.pods, &heard, now);
        members.extend(memory.unseen(&members, Instant::now()));
        let hash = match checked {
            Ok(hash) => hash,
            Err(trouble) => {
                self.say(agent, memory, &members, &heard, "", Some(&trouble), now).await?;
                return Ok(Action::await_change());
            }
        };
        if members.iter().any(|member| member.state == Life::Serving) {
            memory.recovered();
        }
        let pause = memory.pause(Instant::now());
        let plan = build::plan(&agent.spec, &hash, &members, &heard, pause.is_zero());
        let authority = self.context.authority.borrow().clone();
        if !memory.trusts(&authority, Instant::now()) {
            apply::authority(&self.context, &namespace, &authority).await?;
            memory.trusted(authority, Instant::now());
        }
        self.carry_out(agent, name, memory, &mut members, &plan, &hash).await?;
        self.announce(name, memory, &members).await?;
        let stuck = self.say(agent, memory, &members, &heard, &hash, None, now).await?;
        if let Some(trouble) = stuck.as_ref().filter(|trouble| memory.is_news(&trouble.reason)) {
            self.context.event(agent, EventType::Warning, &trouble.reason, "Start", &trouble.message).await;
        }
        let message = stuck.map(|trouble| trouble.message).unwrap_or_default();
        if memory.report(&message, Instant::now()) {
            apply::report(&self.context, name, &message).await?;
        }
        Ok(Action::requeue(next_look(agent, memory, &members)))
    }

    /// Tells the control plane of a spec that it has not heard of. `Some` when it refuses that.
    async fn register(&self, agent: &Agent, memory: &mut Memory) -> Result<Option<Trouble>, Failure> {
        let mut hasher = DefaultHasher::new();
        agent.labels().hash(&mut hasher);
        let version = (agent.metadata.generation, hasher.finish());
        if memory.registered == Some(version) {
            return Ok(None);
        }
        memory.recovered();
        let refused = apply::register(&self.context, agent).await?;
        if refused.is_none() {
            memory.registered = Some(version);
        }
        Ok(refused)
    }

    /// Does what the plan says. What it starts is a member from then on.
    async fn carry_out(
        &self,
        agent: &Agent,
        name: &str,
        memory: &mut Memory,
        members: &mut Vec<Member>,
        plan: &Plan,
        hash: &str,
    ) -> Result<(), Failure> {
        let namespace = agent.namespace().unwrap_or_default();
        for member in members.iter().filter(|member| plan.delete.contains(&member.name)) {
            if let (Life::Failed, Some((reason, message))) = (member.state, &member.trouble) {
                let note = format!("{}: {message}", member.name);
                self.context.event(agent, EventType::Warning, "WorkerFailed", "Run", &note).await;
                if member.age < STEADY {
                    memory.failed(Trouble::new(reason, note), Instant::now());
                }
            }
            apply::bury(&self.context, &namespace, member).await?;
        }
        for member in members.iter().filter(|member| plan.abandon.contains(&member.name)) {
            apply::remove(&self.context, &namespace, member).await?;
        }
        for worker in &plan.drain_idle {
            apply::drain(&self.context, name, worker, true).await?;
        }
        for worker in &plan.drain {
            apply::drain(&self.context, name, worker, false).await?;
        }
        let options = &self.context.options.workers;
        let mut started = |name, uid, task: Option<&String>| {
            let (task, hash) = (task.cloned(), hash.to_owned());
            let member = Member { name, uid, task, hash, ..Member::default() };
            memory.started(member.clone(), Instant::now());
            members.push(member);
        };
        let mut refused = None;
        for _ in 0..plan.start {
            match apply::start(&self.context, &Recipe { agent, options, task: None }).await? {
                Started::Pod(name, uid) => started(name, uid, None),
                Started::Refused(trouble) => {
                    refused = Some(trouble);
                    break;
                }
            }
        }
        for id in &plan.start_for {
            let resource = self.task(&namespace, id);
            let task = ForTask { id, resource: resource.as_ref() };
            match apply::start(&self.context, &Recipe { agent, options, task: Some(task) }).await? {
                Started::Pod(name, uid) => started(name, uid, Some(id)),
                Started::Refused(trouble) => refused = Some(trouble),
            }
        }
        if let Some(trouble) = refused {
            memory.failed(trouble, Instant::now());
        }
        Ok(())
    }

    /// The resource of a task, where it has one.
    fn task(&self, namespace: &str, id: &str) -> Option<Task> {
        let mine = |task: &Guarded<Task>| {
            task.uid().as_deref() == Some(id) && task.namespace().as_deref() == Some(namespace)
        };
        let found = self.tasks.iter().find_map(|(store, _)| store.find(mine))?;
        found.0.as_ref().ok().cloned()
    }

    async fn announce(&self, name: &str, memory: &mut Memory, members: &[Member]) -> Result<(), Failure> {
        let there = members.iter().filter(|one| !matches!(one.state, Life::Succeeded | Life::Failed));
        let mut set: Vec<_> = there.map(|one| (one.name.clone(), one.uid.clone())).collect();
        set.sort();
        let joined = members.iter().all(|one| one.state != Life::Starting);
        if memory.announce(&set, joined, Instant::now()) {
            let told = apply::announce(&self.context, name, &set).await;
            if told.is_err() {
                memory.unannounced();
            }
            told?;
        }
        Ok(())
    }

    /// Writes the status down, if it is time to. Returns what keeps workers from starting.
    #[expect(clippy::too_many_arguments, reason = "all that a status is made from")]
    async fn say(
        &self,
        agent: &Agent,
        memory: &mut Memory,
        members: &[Member],
        heard: &Heard,
        hash: &str,
        refused: Option<&Trouble>,
        now: Timestamp,
    ) -> Result<Option<Trouble>, Failure> {
        let stuck = members
            .iter()
            .filter(|member| member.state == Life::Starting)
            .find_map(|member| member.trouble.as_ref())
            .map(|(reason, message)| Trouble::new(reason, message))
            .or_else(|| memory.trouble().cloned());
        let known = Known { members, heard, hash, refused, stuck: stuck.as_ref() };
        let built = status::build(agent, &known, now);
        let old = agent.status.as_ref();
        let recent = memory.written.is_some_and(|at| at.elapsed() < PACE);
        if old != Some(&built) && (!recent || status::matters(old, &built)) {
            self.context.write_status("agent", agent, &built).await?;
            memory.written = Some(Instant::now());
        }
        Ok(stuck)
    }
}

/// When time alone may have changed something.
fn next_look(agent: &Agent, memory: &Memory, members: &[Member]) -> Duration {
    let mut next = LOOK_AGAIN;
    if memory.written.is_some_and(|at| at.elapsed() < PACE) {
        next = next.min(PACE);
    }
    let pause = memory.pause(Instant::now());
    if !pause.is_zero() {
        next = next.min(pause);
    }
    if members.iter().any(|one| one.state == Life::Starting) {
        next = next.min(LOOK_SOON);
    }
    let idle_timeout = agent.spec.idle_timeout.map_or(build::IDLE_TIMEOUT, |span| span.0);
    let floor = usize::try_from(agent.spec.replicas).unwrap_or_default();
    if members.len() > floor {
        let left = members.iter().filter_map(|one| idle_timeout.checked_sub(one.idle_for?));
        if let Some(left) = left.min() {
            next = next.min(left + Duration::from_millis(50));
        }
    }
    next
}
