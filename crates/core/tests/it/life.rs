//! A task with its clock and its log, and short words for what can be asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rota_core::failure::{Class, Failure};
use rota_core::rank::Priority;
use rota_core::retry::Policy;
use rota_core::target::Target;
use rota_core::task::{
    Body, Command, Dependency, DependencyKey, DependencyState, Desired, Ending, Event, Held, Item, Limits,
    Meaning, New, OnFailure, Rejected, Reply, State, Task, Trace, Transition, WorkerRef, create,
};
use rota_core::usage::Usage;
use rota_core::{AgentName, Epoch, Fence, Namespace, TaskId, Timestamp, WorkerName};
use uuid::Uuid;

/// When every test begins.
pub(crate) const START: Timestamp = Timestamp(1_750_000_000_000_000);
/// The epoch of the worker's session in most tests; others are older or newer.
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

pub(crate) fn held(name: &str, epoch: u64, fence: u64) -> Held {
    Held { by: worker(name, epoch), fence: Fence(fence) }
}

/// A task that is ready as soon as it is made, with round numbers for limits.
pub(crate) fn plain() -> New {
    New {
        id: id(1),
        namespace: Namespace::new("default").unwrap(),
        alias: None,
        title: "a task".to_owned(),
        owner: "ann".to_owned(),
        parent: None,
        retry_of: None,
        labels: BTreeMap::new(),
        target: Target::Agent(AgentName::new("coder").unwrap()),
        priority: Priority::NORMAL,
        desired: Desired::Run,
        limits: Limits::default(),
        retry: Policy::default(),
        not_before: None,
        dependencies: Vec::new(),
        trace: Trace::default(),
        agent_known: true,
        has_secrets: false,
    }
}

pub(crate) fn capabilities() -> Target {
    Target::Capabilities(BTreeSet::from(["code".to_owned()]))
}

pub(crate) fn after(number: u128, on_failure: OnFailure) -> Dependency {
    let id = id(number);
    Dependency { key: DependencyKey::Id(id), on_failure, state: DependencyState::Waiting(id) }
}

pub(crate) fn missing(alias: &str, on_failure: OnFailure) -> Dependency {
    let key = DependencyKey::Alias(alias.to_owned());
    Dependency { key, on_failure, state: DependencyState::Missing }
}

pub(crate) fn update(desired: Desired) -> Command {
    let reason = "the test wants it".to_owned();
    Command::Update { priority: None, labels: None, desired: Some(desired), reason }
}

pub(crate) fn item(meaning: Meaning) -> Item {
    Item { at: START, payload: Bytes::from_static(b"event"), meaning }
}

pub(crate) fn asks(request: &str) -> Item {
    item(Meaning::Asks { request: request.to_owned(), payload: Bytes::from_static(b"which?") })
}

pub(crate) fn answer(request: &str) -> Command {
    Command::GiveInput { request: request.to_owned(), payload: Bytes::from_static(b"this one") }
}

pub(crate) fn assign(name: &str, epoch: u64) -> Command {
    Command::Assign { to: worker(name, epoch), span_id: [255; 8], defaults: Limits::default() }
}

pub(crate) fn appeared(defaults: Limits) -> Command {
    Command::AgentAppeared { defaults }
}

pub(crate) fn tokens(input_tokens: i64) -> Usage {
    Usage { input_tokens, ..Usage::default() }
}

pub(crate) fn finish(held: Held, ending: Ending) -> Command {
    Command::Finish { held, ending, usage: None, session: String::new(), jitter: 1.0 }
}

pub(crate) fn succeeded() -> Ending {
    Ending::Succeeded(Some(Bytes::from_static(b"result")))
}

pub(crate) fn failed(class: Class) -> Ending {
    Ending::Failed(Failure::new(class, "it went wrong"))
}

pub(crate) fn stopped() -> Ending {
    Ending::Stopped { by: "interrupt".to_owned() }
}

/// A task, the time, and all that its log holds.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) task: Task,
    pub(crate) now: Timestamp,
    pub(crate) log: Vec<Event>,
}

impl Life {
    pub(crate) fn new(new: New) -> Self {
        let (task, made) = create(new, START);
        Self { task, now: START, log: made.events }
    }

    pub(crate) fn tries(&mut self, command: Command) -> Result<Transition, Rejected> {
        let done = self.task.apply(command, self.now)?;
        self.log.extend(done.events.iter().cloned());
        Ok(done)
    }

    #[track_caller]
    pub(crate) fn does(&mut self, command: Command) -> Reply {
        self.tries(command).unwrap().reply
    }

    /// Lets time pass and looks at the clock.
    pub(crate) fn wait(&mut self, time: Duration) -> &mut Self {
        self.now = self.now + time;
        let _ = self.tries(Command::Tick);
        self
    }

    pub(crate) fn assign(&mut self) -> &mut Self {
        self.does(assign("w1", EPOCH));
        self
    }

    pub(crate) fn accept(&mut self) -> &mut Self {
        let held = self.live();
        assert_eq!(self.does(Command::Accept(held)), Reply::Done);
        self
    }

    /// Assigned and taken.
    pub(crate) fn start(&mut self) -> &mut Self {
        self.assign().accept()
    }

    pub(crate) fn reject(&mut self) -> &mut Self {
        let held = self.live();
        self.does(Command::Reject { held, reason: "no room".to_owned() });
        self
    }

    pub(crate) fn report(&mut self, first: u64, items: Vec<Item>) -> Result<Reply, Rejected> {
        let held = self.live();
        self.tries(Command::Report { held, first, items }).map(|done| done.reply)
    }

    pub(crate) fn finish(&mut self, ending: Ending) -> Reply {
        let held = self.live();
        self.does(finish(held, ending))
    }

    pub(crate) fn lose(&mut self, epoch: u64) -> Reply {
        self.does(Command::LoseWorker { session: worker("w1", epoch), message: "it is gone".to_owned() })
    }

    pub(crate) fn want(&mut self, desired: Desired) -> &mut Self {
        self.does(update(desired));
        self
    }

    /// What its worker would say it holds; made up where no worker has it.
    pub(crate) fn live(&self) -> Held {
        self.task.assignment.as_ref().map_or_else(
            || held("w1", EPOCH, self.task.fence.0),
            |assignment| held(assignment.worker.as_str(), assignment.epoch.0, self.task.fence.0),
        )
    }

    pub(crate) fn state(&self) -> State {
        self.task.state
    }

    /// Reasons of all its steps.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        let steps = self.log.iter().filter_map(|event| match &event.body {
            Body::State(change) => Some(&*change.reason),
            _ => None,
        });
        steps.collect()
    }

    /// Codes of all notices in its log.
    pub(crate) fn notices(&self) -> Vec<&str> {
        let notices = self.log.iter().filter_map(|event| match &event.body {
            Body::Notice { code, .. } => Some(&**code),
            _ => None,
        });
        notices.collect()
    }
}
