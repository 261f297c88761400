//! Differential test: random commands in random batches have the same replies, commits and reads on the in-memory
//! store and on SQLite, also when SQLite is reopened in between, and when a statement fails and the batch is repeated.

mod commands;
mod plan;

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rota_core::task::State;
use rota_core::{TaskKey, Timestamp};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::memory::InMemoryStore;
use rota_store::{Backend, Budget, Filter, Load, Reader, Snapshot};
use rota_store_sqlite::{Readers, Writer};
use uuid::Uuid;

use self::commands::{View, all_documents, build, id, namespace, tasks};
use self::plan::{Op, SLOTS, Step, step};
use crate::faulty::{Faulty, Plan};

struct StorePair {
    memory: Engine<InMemoryStore>,
    model: InMemoryStore,
    /// `None` only while it is reopened.
    sqlite: Option<(Engine<Faulty<Writer>>, Readers)>,
    plan: Arc<Plan>,
    now: Timestamp,
    batches: u64,
}

fn secrets(backend: &mut impl Backend, key: TaskKey) -> Vec<(TaskKey, bytes::Bytes)> {
    backend.load(&Load { secrets: vec![key], ..Load::default() }).unwrap().secrets
}

fn open(path: &Path, plan: &Arc<Plan>) -> (Engine<Faulty<Writer>>, Readers) {
    let (inner, readers) = rota_store_sqlite::open_connections(path).unwrap();
    (Engine::new(Faulty { inner, plan: Arc::clone(plan) }, 0).unwrap(), readers)
}

impl StorePair {
    fn new(path: &Path) -> Self {
        let (model, plan) = (InMemoryStore::default(), Arc::new(Plan::default()));
        let sqlite = Some(open(path, &plan));
        let memory = Engine::new(model.clone(), 0).unwrap();
        Self { memory, model, sqlite, plan, now: Timestamp(1_750_000_000_000_000), batches: 0 }
    }

    fn take(&mut self, path: &Path, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Reopen => {
                self.sqlite = None;
                self.sqlite = Some(open(path, &self.plan));
                self.memory = Engine::new(self.model.clone(), 0).unwrap();
            }
            Step::Batch { ops, wait, fail } => {
                self.now = Timestamp(self.now.0 + wait);
                self.batches += 1;
                let view = View::new(&mut self.memory, &self.model, self.now);
                let batch = || ops.iter().map(|op| build(op, &view)).collect::<Vec<_>>();
                self.memory.reseed(self.batches);
                let (sqlite, _) = self.sqlite.as_mut().unwrap();
                sqlite.reseed(self.batches);
                // A dry run predicts the replies, and leaves nothing that could change them.
                let predicted = self.memory.dry_run(batch(), self.now).unwrap();
                let predicted = [predicted, sqlite.dry_run(batch(), self.now).unwrap()];
                let before = Reader::revision(&self.model).unwrap();
                let wanted = self.memory.run(batch(), self.now).unwrap();
                let writes = Reader::revision(&self.model).unwrap() != before;
                for replies in predicted {
                    prop_assert_eq!(format!("{replies:?}"), format!("{:?}", wanted.replies));
                }
                // A failure lasts until the next write, which delays deadlines: only one that the retry ends leaves both equal.
                if let Some((after, times)) = fail.as_ref().filter(|_| writes) {
                    self.plan.fail(*after, *times);
                }
                let found = loop {
                    sqlite.reseed(self.batches);
                    if let Ok(outcome) = sqlite.run(batch(), self.now) {
                        break outcome;
                    }
                };
                self.plan.fail(0, 0);
                same(&wanted, &found)?;
                self.check(&wanted)?;
            }
            Step::Settle { wait } => {
                // One tick may requeue a task whose queue timeout has passed by then.
                let tick = |wait| Step::Batch { ops: vec![Op::Tick { limit: 100 }], wait, fail: None };
                self.take(path, &tick(*wait))?;
                self.take(path, &tick(0))?;
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
        for task in (0..SLOTS).flat_map(|slot| tasks(&self.model, slot)) {
            let kept = !secrets(self.memory.backend(), task.key).is_empty();
            let needed = task.has_secrets && !task.state.is_final();
            prop_assert_eq!(kept, needed, "secrets of {}", task.id);
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let (engine, readers) = self.sqlite.as_mut().unwrap();
        let (a, b) = (&self.model as &dyn Reader, readers as &dyn Reader);
        macro_rules! same {
            ($read:expr) => {
                let read = $read;
                prop_assert_eq!(format!("{:?}", read(a)), format!("{:?}", read(b)));
            };
        }
        let few = Budget { entries: 3, bytes: 200 };
        for slot in 0..SLOTS {
            for space in [0, 7] {
                same!(|reads: &dyn Reader| reads.task(&(namespace(space), id(slot))).unwrap());
            }
            for key in tasks(&self.model, slot).into_iter().map(|task| task.key) {
                same!(|reads: &dyn Reader| reads.payload(key).unwrap());
                same!(|reads: &dyn Reader| reads.result(key).unwrap());
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
        same!(|reads: &dyn Reader| reads.list(&Filter { limit: 100, ..Filter::default() }).unwrap());
        same!(|reads: &dyn Reader| reads.list(&Filter { limit: 2, ..Filter::default() }).unwrap());
        let live = vec![State::Pending, State::Queued, State::Running, State::Failed];
        let live = Filter { limit: 3, states: live, ..Filter::default() };
        same!(|reads: &dyn Reader| reads.list(&live).unwrap().tasks);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_matches_the_in_memory_store(steps in prop::collection::vec(step(), 1..40)) {
        // In memory where available: this tests the contents, not their durability.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("rota.db");
        let mut pair = StorePair::new(&path);
        for step in &steps {
            pair.take(&path, step)?;
        }
    }
}
