//! Circuit breakers of agents, of workers (`workers`) and of back ends of models (`backends`), and cool-downs of model
//! credentials (`credentials`). Observes how attempts end in the commit stream, and limits the admission of an agent's tasks
//! after consecutive infrastructure failures. State is in memory and resets on restart. The state machine is
//! `rota_core::breaker`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use rota_core::breaker::{Breaker, Outcome, Policy, State};
use rota_core::quota::CoolDown;
use rota_core::task::{AttemptOutcome, Body};
use rota_core::{AgentName, Fence, TaskId, Timestamp};
use rota_proto::v1;
use rota_proto::v1::event::Kind;
use rota_store::single_writer::Clock;
use rota_store::{AttemptEnded, Commit, TaskChange};
use rota_telemetry::background_tasks::TaskMonitor;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::agents::AgentRegistry;
use crate::keys::{AgentKey, BackendKey, WorkerKey};
use crate::scheduler::{Admission, Scheduler};
use crate::store_client::StoreClient;
use crate::wire::failure;
use credentials::CoolDowns;

/// The circuit breakers of all agents.
pub(crate) struct Breakers {
    policy: Policy,
    /// That of the store, which gives cool-downs their times.
    clock: Clock,
    scheduler: Arc<Scheduler>,
    agents: Arc<AgentRegistry>,
    /// Only those that are not as they were at the start.
    inner: Mutex<BTreeMap<AgentKey, Breaker>>,
    /// Those of workers that are not as they were at the start.
    workers: Mutex<BTreeMap<WorkerKey, Breaker>>,
    /// Those of back ends that are not as they were at the start.
    backends: Mutex<BTreeMap<BackendKey, Breaker>>,
    suspicions: Mutex<workers::Suspicions>,
    cool_downs: Mutex<CoolDowns>,
    /// Wakes the timer: a breaker has opened, or a credential begins to cool down.
    opened: Notify,
}

impl fmt::Debug for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakers").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn admission(state: State) -> Admission {
    match state {
        State::Closed => Admission::Open,
        State::Open { .. } => Admission::Closed,
        State::HalfOpen { .. } => Admission::Probe,
    }
}

/// Describes an agent's breaker for users.
pub(crate) fn describe(agent: &AgentName, breaker: &Breaker, now: Timestamp) -> String {
    format!("agent {agent}: {}", describe_breaker(breaker, "infrastructure failures", now))
}

/// Describes a breaker, and what failed repeatedly.
fn describe_breaker(breaker: &Breaker, failures: &str, now: Timestamp) -> String {
    let (state, effect) = match breaker.state() {
        State::Closed => ("closed".to_owned(), ""),
        State::Open { until } => (format!("open for {} s", until.since(now).as_secs() + 1), ""),
        State::HalfOpen { .. } => ("half-open".to_owned(), "; one probe task is admitted"),
    };
    let cause = match breaker.last() {
        Some((class, message)) => format!("{}: {message}", failure::class_name(*class)),
        None => "cause unknown".to_owned(),
    };
    let count = breaker.failures();
    format!("circuit breaker {state} after {count} consecutive {failures} ({cause}){effect}")
}

/// Whether a report shows that its agent works: it wrote, used a tool, or asked for input.
fn is_evidence(body: &Body) -> bool {
    let Body::Report(entry) = body else { return false };
    let kind = v1::Event::decode(&entry[..]).ok().and_then(|event| event.kind);
    matches!(kind, Some(Kind::Message(_) | Kind::ToolCall(_) | Kind::InputRequest(_)))
}

/// What an outcome has changed of a breaker.
#[derive(Debug, Clone, Copy)]
struct Observed {
    /// The new state, if it is another one.
    changed: Option<State>,
    /// What is admitted from now on, if that has to be set.
    admission: Option<Admission>,
}

impl Observed {
    fn opened(&self) -> bool {
        matches!(self.changed, Some(State::Open { .. }))
    }
}

/// Takes an outcome into one of several breakers, of which those that are as at the start are left out.
fn observe<K: Ord + Clone>(
    breakers: &mut BTreeMap<K, Breaker>,
    policy: &Policy,
    key: &K,
    outcome: Outcome<'_>,
    attempt: (TaskId, Fence),
    now: Timestamp,
) -> Observed {
    let breaker = breakers.entry(key.clone()).or_default();
    let before = breaker.state();
    let probe = breaker.observe_outcome(policy, outcome, attempt, now, rand::random());
    let after = breaker.state();
    if *breaker == Breaker::default() {
        breakers.remove(key);
    }
    // After a probe without evidence, another may be tried.
    let readmits = after != before || probe && matches!(after, State::HalfOpen { .. });
    Observed { changed: (after != before).then_some(after), admission: readmits.then(|| admission(after)) }
}

/// Effect of a commit on the breakers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BreakerChanges {
    pub(crate) opened: u64,
}

impl Breakers {
    pub(crate) fn new(
        policy: Policy,
        scheduler: &Arc<Scheduler>,
        agents: &Arc<AgentRegistry>,
        clock: Clock,
    ) -> Self {
        Self {
            policy,
            clock,
            scheduler: Arc::clone(scheduler),
            agents: Arc::clone(agents),
            inner: Mutex::default(),
            workers: Mutex::default(),
            backends: Mutex::default(),
            suspicions: Mutex::default(),
            cool_downs: Mutex::default(),
            opened: Notify::new(),
        }
    }

    /// Returns the time of the store.
    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Returns every breaker with failures to report.
    pub(crate) fn all(&self) -> BTreeMap<AgentKey, Breaker> {
        self.inner.lock().clone()
    }

    /// Returns the state of an agent's own breaker.
    pub(crate) fn state(&self, agent: &AgentKey) -> State {
        self.inner.lock().get(agent).map(Breaker::state).unwrap_or_default()
    }

    /// Returns what the breakers of an agent and of its back end admit.
    pub(crate) fn admission(&self, agent: &AgentKey) -> Admission {
        let of_backend = self.backend_of(agent).map(|(_, breaker)| admission(breaker.state()));
        admission(self.state(agent)).max(of_backend.unwrap_or_default())
    }

    /// Describes the breakers that hold back an agent's tasks: its own, and that of its back end. Empty if there is none.
    pub(crate) fn describe(&self, agent: &AgentKey) -> String {
        let own = self.get(agent).filter(|breaker| breaker.state() != State::Closed);
        let own = own.map(|breaker| describe(&agent.1, &breaker, self.now()));
        let of_backend =
            self.backend_of(agent).map(|(key, breaker)| backends::describe(&key, &breaker, self.now()));
        own.into_iter().chain(of_backend).collect::<Vec<_>>().join("; ")
    }

    /// Returns an agent's breaker if it has failures to report.
    pub(crate) fn get(&self, agent: &AgentKey) -> Option<Breaker> {
        self.inner.lock().get(agent).cloned()
    }

    /// Takes in the attempts of a commit.
    pub(crate) fn observe(&self, commit: &Commit) -> BreakerChanges {
        let mut changes = BreakerChanges::default();
        // Before the workers: what one alone has seen of a back end counts against it, also as the result of its probe.
        changes.opened += self.observe_backends(commit);
        self.observe_workers(commit);
        self.observe_credentials(commit);
        let mut ends = commit.attempts_ended.iter().peekable();
        for change in &commit.tasks {
            let ended = ends.peek().copied().filter(|end| end.task.id == change.task.id);
            if let Some((agent, attempt)) = self.observe_progress(change, ended)
                && self.agents.contains(&agent)
            {
                self.record(agent, Outcome::Success, attempt);
            }
            let mut was_on_worker = change.before.is_some_and(|before| before.is_on_worker());
            while let Some(end) = ends.next_if(|end| end.task.id == change.task.id) {
                // An attempt that was assigned and lost in one commit was not dispatched, but may be the probe.
                if !std::mem::take(&mut was_on_worker) {
                    self.observe_assignment(end);
                }
                changes.opened += u64::from(self.observe_end(end));
            }
        }
        changes
    }

    /// Registers a probe that was assigned, or returns one whose reports show that its agent works: the probe itself may
    /// run for hours.
    fn observe_progress(
        &self,
        change: &TaskChange,
        ended: Option<&AttemptEnded>,
    ) -> Option<(AgentKey, (TaskId, Fence))> {
        let mut inner = self.inner.lock();
        if inner.is_empty() {
            return None;
        }
        let task = &change.task;
        let assignment = task.assignment.as_ref().or(ended.map(|ended| &ended.attempt.assignment))?;
        let own = assignment.own;
        let agent = (task.namespace.clone(), assignment.agent.clone()?);
        let attempt = (task.id, task.fence);
        let breaker = inner.get_mut(&agent)?;
        if change.dispatch.is_some() {
            breaker.assigned(attempt);
            return None;
        }
        // With credentials of its own a task shows nothing of the agent's.
        let shown = !own.credentials
            && breaker.is_probe(attempt)
            && change.events.iter().any(|event| is_evidence(&event.body));
        shown.then_some((agent, attempt))
    }

    /// Registers an attempt that has ended in the commit that assigned it.
    fn observe_assignment(&self, ended: &AttemptEnded) {
        let Some(agent) = ended.agent() else { return };
        if let Some(breaker) = self.inner.lock().get_mut(&(ended.namespace().clone(), agent.clone())) {
            breaker.assigned((ended.task.id, ended.attempt.fence));
        }
    }

    /// Returns whether the breaker opened.
    fn observe_end(&self, ended: &AttemptEnded) -> bool {
        let Some(agent) = ended.agent() else { return false };
        let agent = (ended.namespace().clone(), agent.clone());
        // A deleted agent has no breaker; attempts that it still runs must not create one.
        let Some(known) = self.agents.get(&agent) else { return false };
        let names_program = || known.spec.runtime.as_ref().is_some_and(v1::Runtime::names_program);
        let attempt = &ended.attempt;
        let own = attempt.assignment.own;
        let outcome = match (&attempt.failure, attempt.outcome) {
            (_, AttemptOutcome::Succeeded) if own.credentials => Outcome::Ignored,
            (_, AttemptOutcome::Succeeded) => Outcome::Success,
            // Its cool-down is the credential's.
            (Some(failure), _)
                if CoolDown::concerns(failure) && ended.task.credential_of(&attempt.assignment).is_some() =>
            {
                Outcome::Ignored
            }
            // That breaker is the back end's.
            (Some(failure), _) if backends::is_blamed(&ended.task, attempt, failure) => Outcome::Ignored,
            (Some(failure), _) => Outcome::of(failure, names_program(), own),
            (None, _) => Outcome::Ignored,
        };
        self.record(agent, outcome, (ended.task.id, attempt.fence))
    }

    fn record(&self, agent: AgentKey, outcome: Outcome<'_>, attempt: (TaskId, Fence)) -> bool {
        let mut inner = self.inner.lock();
        if !matches!(outcome, Outcome::Failure(_)) && !inner.contains_key(&agent) {
            return false;
        }
        let observed = observe(&mut inner, &self.policy, &agent, outcome, attempt, self.now());
        if let Some(admission) = observed.admission {
            // Under the lock, so that the admission never lags behind a later decision.
            self.scheduler.set_admission(&agent, admission);
        }
        if let Some(state) = observed.changed {
            tracing::warn!(namespace = %agent.0, agent = %agent.1, ?state, "circuit breaker changed state");
        }
        if observed.opened() {
            self.opened.notify_one();
        }
        observed.opened()
    }

    /// Closes the breakers of an agent and of its workers, and returns the agent's as it was if it had failures to
    /// report.
    pub(crate) fn reset(&self, agent: &AgentKey) -> Option<Breaker> {
        let mut inner = self.inner.lock();
        let known = inner.remove(agent);
        self.scheduler.set_admission(agent, Admission::Open);
        drop(inner);
        self.forget_workers_of(agent);
        known
    }

    /// Half-opens breakers whose cooldown has ended, and replaces probes that have no result in time.
    fn tick(&self) {
        for (agent, breaker) in &mut *self.inner.lock() {
            if breaker.tick(&self.policy, self.now()) {
                self.scheduler.set_admission(agent, Admission::Probe);
            }
        }
        self.tick_workers();
        self.tick_backends();
        self.tick_credentials();
    }

    /// Returns when the next breaker is due.
    fn next(&self) -> Option<Timestamp> {
        let agents = self.inner.lock().values().filter_map(Breaker::until).min();
        let others = [self.next_worker(), self.next_backend(), self.next_credential()];
        agents.into_iter().chain(others.into_iter().flatten()).min()
    }
}

/// Longest sleep of the timer: deadlines are by the clock, which may be set or have stood still while the machine slept.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Runs the timer of all breakers.
pub(crate) async fn run(
    breakers: Arc<Breakers>,
    store: StoreClient,
    stop: CancellationToken,
    monitor: TaskMonitor,
) {
    loop {
        let wait = async {
            match breakers.next() {
                Some(at) => tokio::time::sleep(at.since(breakers.now()).min(MAX_SLEEP)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = breakers.opened.notified() => continue,
            () = wait => {}
        }
        let activation = monitor.activate();
        breakers.tick();
        breakers.end_cool_downs(&store).await;
        activation.succeeded();
    }
}

pub(crate) mod backends;
mod credentials;
#[cfg(test)]
mod tests;
mod workers;
