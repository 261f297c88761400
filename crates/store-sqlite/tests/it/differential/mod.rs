//! Differential test: random commands in random batches have the same replies, commits and reads on the in-memory
//! store and on one in a database, also when that is reopened in between, and when it fails and the batch is repeated. The tests of
//! each store in a database include this module.

mod commands;
mod plan;
mod workflows;

use proptest::prelude::*;
use rota_core::task::State;
use rota_core::{TaskKey, Timestamp};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::memory::InMemoryStore;
use rota_store::{Backend, Budget, Filter, Load, Reader, Snapshot, TaskBody};
use uuid::Uuid;

use self::commands::{View, all_documents, build, id, namespace, tasks};
use self::plan::{Op, Step, TASK_SLOTS};

pub(crate) use self::plan::step;

/// Largest number of attempts at one batch.
const MAX_ATTEMPTS: u32 = 100;

/// Store in a database, at one place.
pub(crate) trait Place {
    type Writer: Backend;
    type Readers: Reader;

    fn open(&self) -> (Self::Writer, Self::Readers);

    /// Lets calls of the next transaction fail: `times` of them, after so many that succeed.
    fn fail(&self, after: u32, times: u32);

    fn heal(&self);
}

pub(crate) struct StorePair<P: Place> {
    memory: Engine<InMemoryStore>,
    model: InMemoryStore,
    place: P,
    /// `None` only while it is reopened.
    stored: Option<(Engine<P::Writer>, P::Readers)>,
    now: Timestamp,
    batches: u64,
}

fn secrets(backend: &mut impl Backend, key: TaskKey) -> Vec<(TaskKey, bytes::Bytes)> {
    backend.load(&Load { secrets: vec![key], ..Load::default() }).unwrap().secrets
}

fn open<P: Place>(place: &P) -> (Engine<P::Writer>, P::Readers) {
    let (writer, readers) = place.open();
    (Engine::new(writer, 0).unwrap(), readers)
}

impl<P: Place> StorePair<P> {
    pub(crate) fn new(place: P) -> Self {
        let model = InMemoryStore::default();
        let stored = Some(open(&place));
        let memory = Engine::new(model.clone(), 0).unwrap();
        Self { memory, model, place, stored, now: Timestamp(1_750_000_000_000_000), batches: 0 }
    }

    pub(crate) fn take_all(&mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        steps.iter().try_for_each(|step| self.take(step))
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Reopen => {
                self.stored = None;
                self.stored = Some(open(&self.place));
                self.memory = Engine::new(self.model.clone(), 0).unwrap();
            }
            Step::Batch { ops, wait, fail } => {
                self.now = Timestamp(self.now.0 + wait);
                self.batches += 1;
                let view = View::new(&mut self.memory, &self.model, self.now);
                let batch = || ops.iter().map(|op| build(op, &view)).collect::<Vec<_>>();
                self.memory.reseed(self.batches);
                let (stored, _) = self.stored.as_mut().unwrap();
                stored.reseed(self.batches);
                // A dry run predicts the replies, and leaves nothing that could change them.
                let predicted = self.memory.dry_run(batch(), self.now).unwrap();
                let predicted = [predicted, stored.dry_run(batch(), self.now).unwrap()];
                prop_assert_eq!(format!("{:?}", predicted[0]), format!("{:?}", predicted[1]));
                let before = Reader::revision(&self.model).unwrap();
                // What follows from earlier batches waits while a batch is repeated.
                let has_backlog = self.memory.has_backlog();
                let wanted = self.memory.run(batch(), self.now).unwrap();
                let writes = Reader::revision(&self.model).unwrap() != before;
                // A run first continues what follows from earlier batches, which a dry run leaves.
                if !has_backlog {
                    prop_assert_eq!(format!("{:?}", predicted[0]), format!("{:?}", wanted.replies));
                }
                // A failure lasts until the next write, which delays deadlines: only one that the retry ends leaves both equal.
                if let Some((after, times)) = fail.as_ref().filter(|_| writes && !has_backlog) {
                    self.place.fail(*after, *times);
                }
                let found = (0..MAX_ATTEMPTS).find_map(|_| {
                    stored.reseed(self.batches);
                    stored.run(batch(), self.now).ok()
                });
                let found = found.ok_or_else(|| TestCaseError::fail("the store does not continue"))?;
                self.place.heal();
                same(&wanted, &found)?;
                self.check(&wanted)?;
            }
            Step::Settle { wait } => {
                // One tick may requeue a task whose queue timeout has passed by then.
                let tick = |wait| Step::Batch { ops: vec![Op::Tick { limit: 100 }], wait, fail: None };
                self.take(&tick(*wait))?;
                self.take(&tick(0))?;
                let load = Load { due: Some((self.now, 100)), ..Load::default() };
                let due = self.memory.backend().load(&load).unwrap().due;
                prop_assert!(due.is_empty(), "due, and no tick helps: {:?}", due);
            }
        }
        self.compare()
    }

    /// Invariants of any batch on any store.
    fn check(&mut self, outcome: &BatchOutcome) -> Result<(), TestCaseError> {
        for change in &outcome.commit.tasks {
            let task = &change.task;
            let kept = Reader::task(&self.model, &(task.namespace.clone(), task.id)).unwrap();
            prop_assert_eq!(Some(&**task), kept.as_ref());
            let last = change.events.last().map(|event| event.log_seq);
            prop_assert!(last.is_none_or(|last| last == task.log_seq));
            prop_assert_eq!(change.events.is_empty(), change.revision == 0);
        }
        for task in (0..TASK_SLOTS).flat_map(|slot| tasks(&self.model, slot)) {
            let kept = !secrets(self.memory.backend(), task.key).is_empty();
            let needed = task.has_secrets && !task.state.is_final();
            prop_assert_eq!(kept, needed, "secrets of {}", task.id);
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let (engine, readers) = self.stored.as_mut().unwrap();
        let (a, b) = (&self.model as &dyn Reader, readers as &dyn Reader);
        macro_rules! same {
            ($read:expr) => {
                let read = $read;
                prop_assert_eq!(format!("{:?}", read(a)), format!("{:?}", read(b)));
            };
        }
        let few = Budget { entries: 3, bytes: 200 };
        for slot in 0..TASK_SLOTS {
            for space in [0, 7] {
                same!(|reads: &dyn Reader| reads.task(&(namespace(space), id(slot))).unwrap());
            }
            let keys: Vec<_> = tasks(&self.model, slot).into_iter().map(|task| task.key).collect();
            for body in [TaskBody::Payload, TaskBody::Result] {
                same!(|reads: &dyn Reader| reads.bodies(body, &keys, 1 << 20).unwrap());
                same!(|reads: &dyn Reader| reads.bodies(body, &keys, 10).unwrap());
            }
            for key in keys {
                same!(|reads: &dyn Reader| reads.events(key, 0, Budget::UNLIMITED).unwrap());
                same!(|reads: &dyn Reader| reads.events(key, 3, few).unwrap());
                prop_assert_eq!(secrets(self.memory.backend(), key), secrets(engine.backend(), key));
            }
        }
        // Each store has an identity of its own.
        same!(|reads: &dyn Reader| Snapshot { store: Uuid::nil(), ..reads.snapshot().unwrap() });
        same!(|reads: &dyn Reader| reads.revision().unwrap());
        same!(|reads: &dyn Reader| reads.feed(0, Budget::UNLIMITED).unwrap());
        same!(|reads: &dyn Reader| reads.feed(7, few).unwrap());
        same!(|reads: &dyn Reader| reads.changed_texts(0, usize::MAX).unwrap());
        same!(|reads: &dyn Reader| reads.changed_texts(7, 3).unwrap());
        same!(|reads: &dyn Reader| reads.list(&Filter { limit: 100, ..Filter::default() }).unwrap());
        same!(|reads: &dyn Reader| reads.list(&Filter { limit: 2, ..Filter::default() }).unwrap());
        let live = vec![State::Pending, State::Queued, State::Running, State::Failed];
        let live = Filter { limit: 3, states: live, ..Filter::default() };
        same!(|reads: &dyn Reader| reads.list(&live).unwrap().tasks);
        for query in workflows::queries(&self.model) {
            same!(|reads: &dyn Reader| reads.workflows(&query).unwrap());
        }
        same!(|reads: &dyn Reader| reads.documents(&all_documents()).unwrap());
        Ok(())
    }
}

fn same(wanted: &BatchOutcome, found: &BatchOutcome) -> Result<(), TestCaseError> {
    prop_assert_eq!(wanted.replies.len(), found.replies.len());
    for (wanted, found) in wanted.replies.iter().zip(&found.replies) {
        prop_assert_eq!(format!("{wanted:?}"), format!("{found:?}"));
    }
    for (wanted, found) in wanted.commit.tasks.iter().zip(&found.commit.tasks) {
        prop_assert_eq!(format!("{wanted:?}"), format!("{found:?}"));
    }
    prop_assert_eq!(format!("{:?}", wanted.commit), format!("{:?}", found.commit));
    Ok(())
}
