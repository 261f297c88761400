//! Turns a plan into commands, by the contents of the in-memory store before the batch.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::failure::{Class, Failure};
use rota_core::rank::Priority;
use rota_core::spending::Budget;
use rota_core::target::Target;
use rota_core::task::{
    self, AttemptRef, Completion, Dependency, DependencyKey, DependencyState, Desired, EventEffect, Item,
    Limits, Loss, OnFailure, Progress, Task, WorkerRef,
};
use rota_core::usage::Usage;
use rota_core::{AgentName, Epoch, Fence, Namespace, RouteId, TaskId, Timestamp, WorkerName, retry};
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::{Backend, Given, Load};
use rota_store::{
    Claim, Command, Create, Document, DocumentKey, DocumentKind, DocumentsPage, EndSession, Expected,
    OpenSession, Prune, PutAgent, PutDocument, Reader,
};
use uuid::Uuid;

use super::plan::{Ask, Make, Op, TASK_SLOTS};
use super::workflows::{self, Workflows};

/// Objects that commands refer to.
pub(super) struct View {
    tasks: Vec<Option<Task>>,
    epochs: BTreeMap<(Namespace, WorkerName), Epoch>,
    routes: Vec<RouteId>,
    documents: Vec<Document>,
    workflows: Workflows,
    now: Timestamp,
}

impl View {
    pub(super) fn new(engine: &mut Engine<InMemoryStore>, model: &InMemoryStore, now: Timestamp) -> Self {
        let mut epochs = BTreeMap::new();
        let workers = [(0, 0), (0, 1), (0, 2), (7, 0), (7, 1), (7, 2)];
        let sessions = workers.map(|(space, name)| (namespace(space), worker(name))).into();
        let load = Load { sessions, ..Load::default() };
        for (key, session) in engine.backend().load(&load).unwrap().sessions {
            epochs.insert(key, session.epoch);
        }
        let routes = Reader::snapshot(model).unwrap().routes.into_iter().map(|(id, _)| id).collect();
        let tasks = (0..TASK_SLOTS).map(|slot| tasks(model, slot).into_iter().next()).collect();
        let documents = Reader::documents(model, &all_documents()).unwrap().documents;
        let workflows = Workflows::new(model);
        Self { tasks, epochs, routes, documents, workflows, now }
    }

    fn expected(&self, key: &DocumentKey, back: Option<u8>) -> Expected {
        let known = self.documents.iter().find(|document| document.key == *key);
        match (back, known) {
            (None, _) => Expected::Any,
            (Some(0), None) => Expected::Absent,
            (Some(back), Some(known)) => Expected::Version(known.uid, known.version - u64::from(back).min(1)),
            (Some(_), None) => Expected::Version(Uuid::nil(), 1),
        }
    }

    fn session(&self, space: u8, name: u8, old: bool) -> WorkerRef {
        let key = (namespace(space), worker(name));
        let epoch = self.epochs.get(&key).copied().unwrap_or(Epoch(1));
        WorkerRef { worker: key.1, epoch: if old { Epoch(epoch.0.saturating_sub(1)) } else { epoch } }
    }

    fn attempt_of(&self, slot: u8, fence: u8) -> AttemptRef {
        let task = self.tasks[usize::from(slot)].as_ref();
        let last = task.map_or(0, |task| task.fence.0);
        let fence = Fence(match fence {
            0 => last.max(1),
            1 => last + 1,
            2 => last.saturating_sub(1),
            _ => 0,
        });
        let assignment = task.and_then(|task| task.assignment.as_ref());
        let by = assignment.map_or_else(
            || self.session(0, slot % 3, false),
            |assignment| WorkerRef { worker: assignment.worker.clone(), epoch: assignment.epoch },
        );
        AttemptRef { by, fence }
    }
}

/// Every other id as if its caller had chosen it.
pub(super) fn id(slot: u8) -> TaskId {
    let slot = u128::from(slot);
    TaskId(Uuid::from_u128(if slot % 2 == 0 {
        ((0x0197_0000_0000 + slot) << 80) | 0x7000_8000_0000_0000_0000
    } else {
        (slot << 125) | 0x4000_8000_0000_0000_0000 | slot
    }))
}

/// Returns the tasks with the id of a slot: each namespace may have one.
pub(super) fn tasks(model: &InMemoryStore, slot: u8) -> Vec<Task> {
    let found = |space| Reader::task(model, &(namespace(space), id(slot))).unwrap();
    [0, 7].into_iter().filter_map(found).collect()
}

pub(super) fn namespace(number: u8) -> Namespace {
    Namespace::new(if number == 7 { "m" } else { "n" }).unwrap()
}

fn document(space: u8, name: u8) -> DocumentKey {
    DocumentKey { kind: DocumentKind::Schedule, namespace: namespace(space), name: format!("d{name}") }
}

pub(super) fn all_documents() -> DocumentsPage {
    let (kind, bytes) = (DocumentKind::Schedule, usize::MAX);
    DocumentsPage { kind, namespace: None, after: None, limit: 100, bytes }
}

fn worker(number: u8) -> WorkerName {
    WorkerName::new(&format!("w{number}")).unwrap()
}

pub(super) fn agent(number: u8) -> AgentName {
    AgentName::new(&format!("a{number}")).unwrap()
}

fn desired(number: u8) -> Desired {
    match number {
        0 => Desired::Suspended,
        1 => Desired::Cancelled,
        _ => Desired::Run,
    }
}

pub(super) fn build(op: &Op, view: &View) -> Command {
    match op {
        Op::Create(make) => Command::Create(Box::new(create(make, view))),
        Op::Ask { slot, namespace: space, ask } => {
            // Nearly always the right namespace.
            let right = view.tasks[usize::from(*slot)].as_ref().map(|task| task.namespace.clone());
            let namespace = right.filter(|_| *space > 0).unwrap_or_else(|| namespace(0));
            Command::Task { namespace, id: id(*slot), command: command(*slot, ask, view) }
        }
        Op::Claim { namespace: space, worker, old, routes, slots } => {
            let known = view.routes.len();
            let routes = routes.iter().filter(|_| known > 0).map(|at| view.routes[usize::from(*at) % known]);
            Command::Claim(Claim {
                namespace: namespace(*space),
                worker: view.session(*space, *worker, *old),
                shared: if *old { Vec::new() } else { routes.clone().collect() },
                probes: None,
                not_isolating: Default::default(),
                routes: routes.collect(),
                slots: *slots,
            })
        }
        Op::Tick { limit } => Command::tick(*limit),
        Op::Open { namespace: space, worker: name, agent: of, instance, names, last, takes_name } => {
            Command::OpenSession(OpenSession {
                namespace: namespace(*space),
                worker: worker(*name),
                agent: agent(*of),
                instance: format!("process {instance}"),
                replica: "replica".to_owned(),
                running: names
                    .iter()
                    .map(|(slot, fence)| (id(*slot), view.attempt_of(*slot, *fence).fence))
                    .collect(),
                last: last.map(|old| view.session(*space, *name, old).epoch),
                takes_name: *takes_name,
            })
        }
        Op::End { namespace: space, worker, old } => Command::EndSession(EndSession {
            namespace: namespace(*space),
            session: view.session(*space, *worker, *old),
            loss: if *old { Loss::Planned } else { Loss::Died },
            seen: None,
            message: "disconnected".to_owned(),
        }),
        Op::Drain { namespace: space, worker: name, instance } => Command::DrainWorker {
            namespace: namespace(*space),
            worker: worker(*name),
            instance: format!("process {instance}"),
        },
        Op::PutAgent { namespace: space, agent: name, payload, must_exist } => Command::PutAgent(PutAgent {
            agent: Agent {
                namespace: namespace(*space),
                name: agent(*name),
                generation: 0,
                capabilities: [format!("word {payload}")].into(),
                defaults: Limits {
                    queue_timeout: (*payload > 0).then(|| Duration::from_secs((*payload).into())),
                    timeout: (*payload > 1).then_some(Duration::from_secs(3)),
                    ..Limits::default()
                },
                budget: Budget { daily: (*payload > 1).then_some(20), ..Budget::default() },
                created_at: Timestamp(0),
                updated_at: Timestamp(0),
                payload: Bytes::from(vec![*payload]),
            },
            must_exist: *must_exist,
        }),
        Op::DeleteAgent { namespace: space, agent: name } => {
            Command::DeleteAgent { namespace: namespace(*space), name: agent(*name) }
        }
        Op::PutDocument { namespace: space, name, payload, expected } => Command::PutDocument(PutDocument {
            key: document(*space, *name),
            payload: Bytes::from(vec![*payload]),
            expected: view.expected(&document(*space, *name), *expected),
        }),
        Op::DeleteDocument { namespace: space, name, expected } => {
            let key = document(*space, *name);
            let expected = view.expected(&key, *expected);
            Command::DeleteDocument(key, expected)
        }
        Op::Workflow(op) => workflows::build(op, &view.workflows, &view.tasks, view.now),
        Op::Prune { seconds, limit } => {
            let before = Timestamp(view.now.0 - seconds * 1_000_000);
            let ended_before = (seconds % 5 > 0).then_some(before);
            Command::Prune(Prune { ended_before, left_before: before, limit: *limit })
        }
    }
}

fn create(make: &Make, view: &View) -> Create {
    let space = namespace(make.namespace);
    let dependencies = make.dependencies.iter().map(|(by_alias, which, policy)| Dependency {
        of_thread: false,
        key: if *by_alias {
            DependencyKey::Alias(format!("x{}", which % 3))
        } else {
            DependencyKey::Id(id(*which))
        },
        on_failure: [OnFailure::Fail, OnFailure::Continue, OnFailure::Cancel][usize::from(*policy)],
        state: DependencyState::Missing,
    });
    let task = Task {
        alias: make.alias.map(|alias| format!("x{alias}")),
        // Some of them.
        thread: make.slot.is_multiple_of(3).then(|| format!("t{}", make.slot % 2)),
        title: format!("task {}", make.slot),
        priority: Priority::new(make.priority).unwrap(),
        desired: desired(make.desired),
        limits: Limits {
            timeout: (make.attempts > 1).then_some(Duration::from_secs(30)),
            queue_timeout: make.queue_timeout.map(Duration::from_secs),
            cancel_grace: None,
            ..Limits::default()
        },
        retry: retry::Policy { max_attempts: make.attempts, ..retry::Policy::default() },
        not_before: make.not_before.map(|seconds| view.now + Duration::from_secs(seconds.unsigned_abs())),
        dependencies: dependencies.collect(),
        ..Task::new(
            id(make.slot),
            space,
            match make.target {
                0..3 => Target::Agent(agent(make.target % 2)),
                3 => Target::Worker(worker(0)),
                _ => Target::Capabilities(["code".to_owned()].into()),
            },
        )
    };
    Create {
        task,
        payload: Bytes::from(vec![make.slot; 8]),
        secrets: make.secrets.then(|| Bytes::from_static(b"sealed")),
        given: Given { input: make.secrets.then(|| Bytes::from_static(b"input")), work: None },
        key: make.key.map(|key| format!("key {key}")),
        foreign_id: true,
        strict: make.strict,
        offer: make.offer.map(|worker| view.session(make.namespace, worker, false)),
    }
}

fn command(slot: u8, ask: &Ask, view: &View) -> task::Command {
    match ask {
        Ask::Accept { fence } => task::Command::Accept(view.attempt_of(slot, *fence)),
        Ask::Reject { fence } => {
            task::Command::Reject { attempt: view.attempt_of(slot, *fence), reason: "no room".to_owned() }
        }
        Ask::Report { fence, gap, items } => {
            let assignment = view.tasks[usize::from(slot)].as_ref().and_then(|task| task.assignment.as_ref());
            let next = assignment.map_or(0, |assignment| assignment.attempt_seq) + 1;
            task::Command::Report {
                attempt: view.attempt_of(slot, *fence),
                first: next.saturating_sub(1) + u64::from(*gap).max(1) - u64::from(*gap == 2),
                items: items.iter().map(|kind| item(*kind, view.now)).collect(),
            }
        }
        Ask::Finish { fence, completion } => task::Command::Finish {
            attempt: view.attempt_of(slot, *fence),
            // Sometimes more items than were reported.
            last: u64::from(*completion == 2),
            completion: match completion {
                0 | 1 => Completion::Succeeded(Some(Bytes::from_static(b"42"))),
                2 => Completion::Succeeded(None),
                3 => Completion::Failed(Failure::new(Class::Crash, "it fell")),
                4 => Completion::Failed(Failure::new(Class::RateLimit, "slowly")),
                _ => Completion::Stopped { by: "SIGTERM".to_owned() },
            },
            usage: (*completion == 1).then(|| Usage { turns: 3, cost_micro_usd: 7, ..Usage::default() }),
            session: if *completion == 3 { "session".to_owned() } else { String::new() },
            jitter: 0.25,
        },
        Ask::Update { priority, desired: wish, label } => task::Command::Update {
            priority: priority.and_then(Priority::new),
            labels: label.map(|label| BTreeMap::from([("team".to_owned(), label.to_string())])),
            desired: wish.map(desired),
            reason: "so".to_owned(),
        },
        Ask::Input { answers } => task::Command::GiveInput {
            request: if *answers { "question".to_owned() } else { String::new() },
            payload: Bytes::from_static(b"input"),
            grant: None,
        },
        Ask::Tick => task::Command::TICK,
    }
}

fn item(kind: u8, at: Timestamp) -> Item {
    let effect = match kind {
        0 => EventEffect::Progress(Progress { fraction: 0.5, step: "half".to_owned() }),
        1 => EventEffect::Usage(Usage { turns: 2, ..Usage::default() }),
        2 => EventEffect::InputRequested {
            request: "question".to_owned(),
            payload: Bytes::from_static(b"why"),
        },
        3 => EventEffect::InputResolved("question".to_owned()),
        _ => EventEffect::None,
    };
    Item { at, payload: Bytes::from(vec![kind; 4]), effect }
}
