//! Agents that are given nothing for a while, because their attempts failed through no fault of their tasks. Follows
//! the commits, and tells the fleet what each agent may be given. In memory: a control plane that starts gives everybody
//! a chance. The rules are `rota_core::breaker`'s.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rota_core::breaker::{Breaker, Policy, State, Word};
use rota_core::task::{Body, State as TaskState, Task};
use rota_core::{AgentName, Namespace, TaskId, Timestamp};
use rota_proto::v1::event::Kind;
use rota_proto::v1::{self, runtime};
use rota_store::{Commit, TaskChange};
use rota_telemetry::loops::Beat;
use tokio::sync::Notify;

use crate::dispatch::Gate;
use crate::shared::{Shared, now};
use crate::wire::failure;

pub(crate) type Key = (Namespace, AgentName);

/// All agents' breakers.
#[derive(Debug)]
pub(crate) struct Breakers {
    policy: Policy,
    inner: Mutex<Inner>,
    /// One has opened: there is an end to wait for.
    opened: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Only those that have something to tell.
    breakers: BTreeMap<Key, Breaker>,
    /// Who does what is on a worker.
    doers: HashMap<TaskId, Doer>,
}

#[derive(Debug, Clone)]
struct Doer {
    agent: AgentName,
    /// It is the one task that was let through.
    tries: bool,
    /// The task says itself what is run.
    own_program: bool,
    /// The task says itself which model answers, or with which key.
    own_model: bool,
}

impl Doer {
    fn new(agent: AgentName, tries: bool) -> Self {
        Self { agent, tries, own_program: false, own_model: false }
    }
}

impl Breakers {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, inner: Mutex::default(), opened: Notify::new() }
    }

    /// Each agent whose last attempt was not well.
    pub(crate) fn all(&self) -> BTreeMap<Key, Breaker> {
        self.inner.lock().breakers.clone()
    }

    /// What an agent may be given.
    pub(crate) fn state(&self, agent: &Key) -> State {
        self.inner.lock().breakers.get(agent).map(Breaker::state).unwrap_or_default()
    }

    /// How an agent's stands.
    pub(crate) fn get(&self, agent: &Key) -> Option<Breaker> {
        self.inner.lock().breakers.get(agent).cloned()
    }

    /// A task that was on a worker when the control plane started.
    pub(crate) fn load(&self, task: &Task, agent: &AgentName) {
        self.inner.lock().doers.insert(task.id, Doer::new(agent.clone(), false));
    }

    /// Notes what of a task that was just given is its own.
    pub(crate) fn sent(&self, task: TaskId, spec: &v1::TaskSpec, secrets: bool) {
        let names_model = |name: &String| name.starts_with("ANTHROPIC_") || name.starts_with("CLAUDE_CODE_");
        let (program, model) = (spec.runtime.is_some(), secrets || spec.environment.keys().any(names_model));
        if !program && !model {
            return;
        }
        if let Some(doer) = self.inner.lock().doers.get_mut(&task) {
            (doer.own_program, doer.own_model) = (program, model);
        }
    }

    /// The next end of a wait.
    fn next(&self) -> Option<Timestamp> {
        self.inner.lock().breakers.values().filter_map(Breaker::until).min()
    }
}

fn gate(state: State) -> Gate {
    match state {
        State::Closed => Gate::Open,
        State::Open { .. } => Gate::Shut,
        State::HalfOpen { .. } => Gate::One,
    }
}

/// Why an agent is not given what waits for it.
pub(crate) fn sentence(agent: &AgentName, breaker: &Breaker) -> String {
    let gets = match breaker.state() {
        State::Closed => "gets all that waits for it".to_owned(),
        State::Open { until } => format!("gets no tasks for {} s", until.since(now()).as_secs() + 1),
        State::HalfOpen { .. } => "gets one task, to see whether it works again".to_owned(),
    };
    let why = match breaker.last() {
        Some((class, message)) => format!("{}: {message}", failure::class_name(*class)),
        None => "nothing is known of why".to_owned(),
    };
    let count = breaker.failures();
    format!(
        "the agent {agent} {gets}: {count} attempts in a row failed through no fault of their tasks ({why})"
    )
}

impl Shared {
    /// Takes in how a commit's attempts ended.
    pub(crate) fn judge(&self, commit: &Commit) {
        for change in &commit.tasks {
            self.judge_task(change);
        }
    }

    fn judge_task(&self, change: &TaskChange) {
        let task = &*change.task;
        for event in change.events.iter() {
            let step = match &event.body {
                Body::State(step) => step,
                Body::Report(entry) => {
                    self.judge_report(task, entry);
                    continue;
                }
                _ => continue,
            };
            if step.to == TaskState::Assigned {
                let taker =
                    step.worker.as_ref().and_then(|worker| self.fleet.agent_of(&task.namespace, worker));
                if let Some(agent) = taker {
                    let key = (task.namespace.clone(), agent);
                    let tries = matches!(self.breakers.state(&key), State::HalfOpen { .. });
                    self.breakers.inner.lock().doers.insert(task.id, Doer::new(key.1, tries));
                }
            } else if !step.to.is_on_worker() && step.from.is_some_and(TaskState::is_on_worker) {
                let doer = self.breakers.inner.lock().doers.remove(&task.id);
                let named = || task.agent().map(|agent| Doer::new(agent.clone(), false));
                let Some(doer) = doer.or_else(named) else { continue };
                let key = (task.namespace.clone(), doer.agent.clone());
                let word = match (&step.failure, step.to) {
                    // With a key of its own it says nothing of the agent's.
                    (_, TaskState::Succeeded) if doer.own_model => Word::Nothing,
                    (_, TaskState::Succeeded) => Word::Well,
                    (Some(failure), _) => {
                        let program = !doer.own_program && self.names_program(&key);
                        Word::of(failure, program, !doer.own_model)
                    }
                    (None, _) => Word::Nothing,
                };
                self.ended(key, word, doer.tries);
            }
        }
    }

    /// The one task that was let through may take hours: that its agent says, does or asks something is enough.
    fn judge_report(&self, task: &Task, entry: &Bytes) {
        let mut inner = self.breakers.inner.lock();
        let Some(doer) = inner.doers.get_mut(&task.id).filter(|doer| doer.tries) else { return };
        let kind = v1::Event::decode(&entry[..]).ok().and_then(|event| event.kind);
        if matches!(kind, Some(Kind::Message(_) | Kind::ToolCall(_) | Kind::InputRequest(_))) {
            doer.tries = false;
            let key = (task.namespace.clone(), doer.agent.clone());
            drop(inner);
            self.ended(key, Word::Well, true);
        }
    }

    /// Whether an agent's tasks run a program of the agent's choice.
    fn names_program(&self, key: &Key) -> bool {
        let known = self.agent(&key.0, &key.1);
        let kind = known.and_then(|known| known.spec.runtime.as_ref()?.kind.clone());
        match kind {
            Some(runtime::Kind::Claude(_)) => true,
            Some(runtime::Kind::Command(command)) => !command.argv.is_empty() || !command.shell.is_empty(),
            _ => false,
        }
    }

    fn ended(&self, key: Key, word: Word<'_>, tried: bool) {
        // Of one that is deleted nothing is kept; what it still runs would bring it back.
        let known = self.agent(&key.0, &key.1).is_some();
        let mut inner = self.breakers.inner.lock();
        if !known || !matches!(word, Word::AtFault(_)) && !inner.breakers.contains_key(&key) {
            return;
        }
        let breaker = inner.breakers.entry(key.clone()).or_default();
        let before = breaker.state();
        breaker.ended(&self.breakers.policy, word, tried, now(), rand::random());
        let after = breaker.state();
        if *breaker == Breaker::default() {
            inner.breakers.remove(&key);
        }
        if after != before {
            tracing::warn!(namespace = %key.0, agent = %key.1, state = ?after, "an agent's breaker has changed");
            if matches!(after, State::Open { .. }) {
                self.metrics.breaker_opened();
                self.breakers.opened.notify_one();
            }
        }
        // Also when nothing changed: what was tried said nothing, and the next one may try.
        if after != before || tried && matches!(after, State::HalfOpen { .. }) {
            // Under the lock: the gate must not lag behind what another has decided since.
            self.fleet.set_gate(&key.0, &key.1, gate(after));
            drop(inner);
            self.watchers.fleet_changed();
        }
    }

    /// Closes an agent's breaker by hand. How it stood; `None` if there was nothing to close.
    pub(crate) fn reset_breaker(&self, key: &Key) -> Option<Breaker> {
        let mut inner = self.breakers.inner.lock();
        let known = inner.breakers.remove(key);
        self.fleet.set_gate(&key.0, &key.1, Gate::Open);
        drop(inner);
        self.watchers.fleet_changed();
        known
    }
}

/// Lets one task through when a cool-down is over, or when nothing was heard of the last one.
pub(crate) async fn run(shared: Arc<Shared>, beat: Beat) {
    loop {
        let wait = async {
            match shared.breakers.next() {
                Some(at) => tokio::time::sleep(at.since(now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.breakers.opened.notified() => continue,
            () = wait => {}
        }
        let round = beat.round();
        for ((namespace, agent), breaker) in &mut shared.breakers.inner.lock().breakers {
            if breaker.tick(&shared.breakers.policy, now()) {
                shared.fleet.set_gate(namespace, agent, Gate::One);
            }
        }
        shared.watchers.fleet_changed();
        round.succeeded();
    }
}
