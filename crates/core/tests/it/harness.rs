//! Test harness: a task with its clock and log, and shorthands for commands.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rota_core::failure::{Class, Failure};
use rota_core::spending::{BudgetWait, Period, Scope};
use rota_core::target::Target;
use rota_core::task::{
    AttemptRef, Body, Command, Completion, Dependency, DependencyKey, DependencyState, Desired, Event,
    EventEffect, Item, Limits, Loss, OnFailure, Rejected, Reply, State, Stopping, Task, Transition,
    WorkerRef, create,
};
use rota_core::usage::Usage;
use rota_core::{AgentName, Epoch, Fence, Namespace, TaskId, Timestamp, WorkerName};
use uuid::Uuid;

/// Time at which every test starts.
pub(crate) const START: Timestamp = Timestamp(1_750_000_000_000_000);
/// Epoch of the worker's session in most tests; others are older or newer.
pub(crate) const EPOCH: u64 = 5;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn id(number: u128) -> TaskId {
    TaskId(Uuid::from_u128(number))
}

pub(crate) fn worker(name: &str, epoch: u64) -> WorkerRef {
    WorkerRef { worker: WorkerName::new(name).unwrap(), epoch: Epoch(epoch) }
}

pub(crate) fn agent(name: &str) -> AgentName {
    AgentName::new(name).unwrap()
}

pub(crate) fn attempt_of(name: &str, epoch: u64, fence: u64) -> AttemptRef {
    AttemptRef { by: worker(name, epoch), fence: Fence(fence) }
}

/// A task that is ready on creation.
pub(crate) fn plain() -> Task {
    Task {
        title: "a task".to_owned(),
        owner: "ann".to_owned(),
        agent_known: true,
        ..Task::new(
            id(1),
            Namespace::new("default").unwrap(),
            Target::Agent(AgentName::new("coder").unwrap()),
        )
    }
}

pub(crate) fn capabilities() -> Target {
    Target::Capabilities(BTreeSet::from(["code".to_owned()]))
}

pub(crate) fn after(number: u128, on_failure: OnFailure) -> Dependency {
    let id = id(number);
    Dependency {
        key: DependencyKey::Id(id),
        on_failure,
        state: DependencyState::Waiting(id),
        of_thread: false,
    }
}

pub(crate) fn missing(alias: &str, on_failure: OnFailure) -> Dependency {
    let key = DependencyKey::Alias(alias.to_owned());
    Dependency { key, on_failure, state: DependencyState::Missing, of_thread: false }
}

pub(crate) fn update(desired: Desired) -> Command {
    let reason = "the test wants it".to_owned();
    Command::Update { priority: None, labels: None, desired: Some(desired), reason }
}

pub(crate) fn item(effect: EventEffect) -> Item {
    Item { at: START, payload: Bytes::from_static(b"event"), effect }
}

pub(crate) fn request(request: &str) -> Item {
    item(EventEffect::InputRequested { request: request.to_owned(), payload: Bytes::from_static(b"which?") })
}

pub(crate) fn stop(fence: Fence, requeue: bool) -> Command {
    let failure = Failure::new(Class::Budget, "the budget is spent");
    let wait = requeue.then(budget_wait);
    Command::Stop { fence, stopping: Stopping { failure, wait } }
}

/// A budget that has room again two hours after the start.
pub(crate) fn budget_wait() -> BudgetWait {
    let (since, until) = (START, START + secs(7200));
    BudgetWait { scope: Scope::Namespace, period: Period::Day, since, until }
}

pub(crate) fn answer(request: &str) -> Command {
    Command::GiveInput { request: request.to_owned(), payload: Bytes::from_static(b"this one"), grant: None }
}

pub(crate) fn assign(name: &str, epoch: u64) -> Command {
    Command::Assign {
        to: worker(name, epoch),
        agent: agent("coder"),
        span_id: [255; 8],
        defaults: Limits::default(),
        reserved: 0,
    }
}

pub(crate) fn appeared(defaults: Limits) -> Command {
    Command::AgentAppeared { defaults }
}

pub(crate) fn tokens(input_tokens: i64) -> Usage {
    Usage { input_tokens, ..Usage::default() }
}

pub(crate) fn finish(attempt: AttemptRef, completion: Completion) -> Command {
    Command::Finish { attempt, last: 0, completion, usage: None, session: String::new(), jitter: 1.0 }
}

pub(crate) fn succeeded() -> Completion {
    Completion::Succeeded(Some(Bytes::from_static(b"result")))
}

pub(crate) fn failed(class: Class) -> Completion {
    Completion::Failed(Failure::new(class, "it failed"))
}

pub(crate) fn undelivered() -> Completion {
    let failure = Failure::new(Class::Delivery, "the forge is away");
    Completion::Undelivered { failure, result: Bytes::from_static(b"result") }
}

pub(crate) fn stopped() -> Completion {
    Completion::Stopped { by: "interrupt".to_owned() }
}

/// A task with its clock and its whole log.
#[derive(Debug, Clone)]
pub(crate) struct Harness {
    pub(crate) task: Task,
    pub(crate) now: Timestamp,
    pub(crate) log: Vec<Event>,
}

impl Harness {
    pub(crate) fn new(new: Task) -> Self {
        let (task, made) = create(new, START);
        Self { task, now: START, log: made.events }
    }

    pub(crate) fn try_apply(&mut self, command: Command) -> Result<Transition, Rejected> {
        let done = self.task.apply(command, self.now)?;
        self.log.extend(done.events.iter().cloned());
        Ok(done)
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        self.try_apply(command).unwrap().reply
    }

    /// Advances the clock and ticks.
    pub(crate) fn wait(&mut self, time: Duration) -> &mut Self {
        self.now = self.now + time;
        let _ = self.try_apply(Command::TICK);
        self
    }

    pub(crate) fn assign(&mut self) -> &mut Self {
        self.apply(assign("w1", EPOCH));
        self
    }

    pub(crate) fn accept(&mut self) -> &mut Self {
        let attempt = self.live();
        assert_eq!(self.apply(Command::Accept(attempt)), Reply::Done);
        self
    }

    /// Assigns the task and accepts it.
    pub(crate) fn start(&mut self) -> &mut Self {
        self.assign().accept()
    }

    /// Has the control plane keep a checkpoint of the attempt.
    pub(crate) fn keep_checkpoint(&mut self) -> &mut Self {
        let attempt = self.live();
        let list = Bytes::from_static(b"list");
        self.apply(Command::KeepArtifacts { attempt, list, checkpoint: true, unusable: false });
        self
    }

    pub(crate) fn reject(&mut self) -> &mut Self {
        let attempt = self.live();
        self.apply(Command::Reject { attempt, reason: "no room".to_owned() });
        self
    }

    /// Reports items, which happen now unless they have a time of their own.
    pub(crate) fn report(&mut self, first: u64, mut items: Vec<Item>) -> Result<Reply, Rejected> {
        for item in items.iter_mut().filter(|item| item.at == START) {
            item.at = self.now;
        }
        let attempt = self.live();
        self.try_apply(Command::Report { attempt, first, items }).map(|done| done.reply)
    }

    pub(crate) fn finish(&mut self, completion: Completion) -> Reply {
        let attempt = self.live();
        self.apply(finish(attempt, completion))
    }

    pub(crate) fn lose(&mut self, epoch: u64) -> Reply {
        self.lose_by(epoch, Loss::Died)
    }

    pub(crate) fn lose_by(&mut self, epoch: u64, loss: Loss) -> Reply {
        self.apply(Command::LoseWorker {
            session: worker("w1", epoch),
            loss,
            seen: Some(self.now),
            message: "it disconnected".to_owned(),
        })
    }

    pub(crate) fn update(&mut self, desired: Desired) -> &mut Self {
        self.apply(update(desired));
        self
    }

    /// Returns the attempt as its worker would report it; invented if it is on no worker.
    pub(crate) fn live(&self) -> AttemptRef {
        self.task.assignment.as_ref().map_or_else(
            || attempt_of("w1", EPOCH, self.task.fence.0),
            |assignment| attempt_of(assignment.worker.as_str(), assignment.epoch.0, self.task.fence.0),
        )
    }

    pub(crate) fn state(&self) -> State {
        self.task.state
    }

    /// Returns the reasons of all state changes.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        let steps = self.log.iter().filter_map(|event| match &event.body {
            Body::State(change) => Some(&*change.reason),
            _ => None,
        });
        steps.collect()
    }

    /// Returns the codes of all notices.
    pub(crate) fn notices(&self) -> Vec<&str> {
        let notices = self.log.iter().filter_map(|event| match &event.body {
            Body::Notice { code, .. } => Some(&**code),
            _ => None,
        });
        notices.collect()
    }
}
