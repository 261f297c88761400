//! Agents that are given nothing for a while, because their attempts failed through no fault of their tasks. Follows
//! the commits, and tells the fleet what each agent may be given. In memory: a control plane that starts gives everybody
//! a chance. The rules are `rota_core::breaker`'s.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::breaker::{Breaker, Policy, State, Word};
use rota_core::task::{Body, State as TaskState, Task};
use rota_core::{AgentName, Namespace, TaskId, Timestamp};
use rota_proto::v1::runtime;
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
    /// Who does what is on a worker, and whether it was the one task let through.
    doers: HashMap<TaskId, (AgentName, bool)>,
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

    /// The next end of a cool-down.
    fn next(&self) -> Option<Timestamp> {
        let inner = self.inner.lock();
        let until = |breaker: &Breaker| match breaker.state() {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen => None,
        };
        inner.breakers.values().filter_map(until).min()
    }
}

fn gate(state: State) -> Gate {
    match state {
        State::Closed => Gate::Open,
        State::Open { .. } => Gate::Shut,
        State::HalfOpen => Gate::One,
    }
}

/// Why an agent is not given what waits for it.
pub(crate) fn sentence(agent: &AgentName, breaker: &Breaker) -> String {
    let gets = match breaker.state() {
        State::Closed => "gets all that waits for it".to_owned(),
        State::Open { until } => format!("gets no tasks for {} s", until.since(now()).as_secs() + 1),
        State::HalfOpen => "gets one task, to see whether it works again".to_owned(),
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
            let Body::State(step) = &event.body else { continue };
            if step.to == TaskState::Assigned {
                let taker =
                    step.worker.as_ref().and_then(|worker| self.fleet.agent_of(&task.namespace, worker));
                if let Some(agent) = taker {
                    let key = (task.namespace.clone(), agent);
                    let tries = self.breakers.state(&key) == State::HalfOpen;
                    self.breakers.inner.lock().doers.insert(task.id, (key.1, tries));
                }
            } else if !step.to.is_on_worker() && step.from.is_some_and(TaskState::is_on_worker) {
                let doer = self.breakers.inner.lock().doers.remove(&task.id);
                let doer = doer.map(|(agent, _)| agent);
                let Some(agent) = doer.or_else(|| task.agent().cloned()) else { continue };
                let key = (task.namespace.clone(), agent);
                let word = match (&step.failure, step.to) {
                    (_, TaskState::Succeeded) => Word::Well,
                    (Some(failure), _) => Word::of(failure, self.names_program(&key)),
                    (None, _) => Word::Nothing,
                };
                self.ended(key, word);
            }
        }
        self.judge_answers(task);
    }

    /// The one task that was let through may take hours: that its model answers says enough.
    fn judge_answers(&self, task: &Task) {
        let answers = task.assignment.as_ref().is_some_and(|assignment| assignment.usage.output_tokens > 0);
        let mut inner = self.breakers.inner.lock();
        let Some((agent, tries)) = inner.doers.get_mut(&task.id).filter(|(_, tries)| *tries && answers)
        else {
            return;
        };
        *tries = false;
        let key = (task.namespace.clone(), agent.clone());
        drop(inner);
        self.ended(key, Word::Well);
    }

    /// Whether an agent's tasks run a program of the agent's choice.
    fn names_program(&self, key: &Key) -> bool {
        let known = self.agent(&key.0, &key.1);
        let kind = known.and_then(|known| known.spec.runtime.as_ref()?.kind.clone());
        matches!(kind, Some(runtime::Kind::Claude(_)))
    }

    fn ended(&self, key: Key, word: Word<'_>) {
        let mut inner = self.breakers.inner.lock();
        if !matches!(word, Word::AtFault(_)) && !inner.breakers.contains_key(&key) {
            return;
        }
        let breaker = inner.breakers.entry(key.clone()).or_default();
        let before = breaker.state();
        breaker.ended(&self.breakers.policy, word, now(), rand::random());
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
        if after != before || after == State::HalfOpen {
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

/// Lets one task through when a cool-down is over.
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
            if breaker.tick(now()) {
                shared.fleet.set_gate(namespace, agent, Gate::One);
            }
        }
        shared.watchers.fleet_changed();
        round.succeeded();
    }
}
