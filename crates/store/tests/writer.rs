//! A writer that panics: the stream of commits ends, and no caller waits. And one whose backend is slow.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rota_core::Timestamp;
use rota_core::task::{self, ACCEPT_TIMEOUT, AttemptRef, State, Task, WorkerRef};
use rota_core::time::micros;
use rota_store::conformance::{Harness, drive};
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::{Clock, SingleWriterStore};
use rota_store::{Backend, Changes, Command, Error, Load, Loaded, Snapshot, Store, Written};

/// Limit of any wait; only a broken store reaches it.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn commit_stream_ends_when_writer_panics() {
    let memory = InMemoryStore::default();
    let broken = Arc::new(AtomicBool::new(false));
    let clock = {
        let broken = Arc::clone(&broken);
        move || {
            assert!(!broken.load(Ordering::Relaxed), "the test wants the writer to panic");
            Timestamp(1)
        }
    };
    let engine = Engine::new(memory.clone(), 1).unwrap();
    let store = SingleWriterStore::start(engine, memory, Arc::new(clock)).unwrap();
    let mut commits = store.commits().unwrap();
    let tick = || store.apply(vec![Command::tick(1)]);
    tick().await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(WAIT_TIMEOUT, async {
        assert!(matches!(tick().await, Err(Error::Closed)));
        assert!(commits.recv().await.is_none());
        broken.store(false, Ordering::Relaxed);
        assert!(matches!(tick().await, Err(Error::Closed)), "it does not come back by itself");
        store.close().await;
    });
    ended.await.unwrap();
}

/// Microseconds that a test sets.
type Micros = Arc<AtomicI64>;

/// A backend whose writes take time, by the clock of the store.
#[derive(Debug)]
struct Slow {
    inner: InMemoryStore,
    /// By how much the clock of the store is ahead of the harness's.
    ahead: Micros,
    /// What the next write takes.
    takes: Micros,
}

impl Backend for Slow {
    fn load(&mut self, load: &Load) -> Result<Loaded, Error> {
        self.inner.load(load)
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        self.ahead.fetch_add(self.takes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.inner.write(changes)
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        Backend::snapshot(&mut self.inner)
    }
}

/// Returns what opens a store with such a backend.
fn start(ahead: &Micros, takes: &Micros) -> impl Fn(Clock) -> Arc<dyn Store> + use<> {
    let (inner, ahead, takes) = (InMemoryStore::default(), Arc::clone(ahead), Arc::clone(takes));
    move |clock| {
        let (inner, ahead, takes) = (inner.clone(), Arc::clone(&ahead), Arc::clone(&takes));
        let engine = Engine::new(Slow { inner: inner.clone(), ahead: Arc::clone(&ahead), takes }, 1).unwrap();
        let clock = move || Timestamp(clock().0 + ahead.load(Ordering::Relaxed));
        Arc::new(SingleWriterStore::start(engine, inner, Arc::new(clock)).unwrap())
    }
}

/// Creates a task, and assigns it with a write that takes so long.
async fn assign(t: &mut Harness, worker: &WorkerRef, takes: &Micros, took: Duration) -> Arc<Task> {
    t.plain().await;
    takes.store(micros(took), Ordering::Relaxed);
    t.claim(worker, 1).await.remove(0)
}

fn assigned_at(task: &Task) -> Timestamp {
    task.assignment.as_ref().unwrap().at
}

#[test]
fn slow_write_leaves_its_time_to_accept() {
    let (ahead, takes) = (Micros::default(), Micros::default());
    drive(start(&ahead, &takes), async |t: &mut Harness| {
        t.agent("a").await;
        let worker = t.hello("w").await;
        let mut delayed = t.task();
        delayed.task.not_before = Some(t.now() + Duration::from_secs(5));
        let delayed = t.create(delayed).await;
        let took = Duration::from_secs(12);
        // An earlier assignment is accepted after the slow write, too.
        let earlier = assign(t, &worker, &takes, Duration::ZERO).await;
        let slow = assign(t, &worker, &takes, took).await;
        assert_eq!(t.tick().await, 1);
        assert_eq!(t.state(delayed.id).await, State::Queued, "start times do not wait");
        assert_eq!([t.state(earlier.id).await, t.state(slow.id).await], [State::Assigned; 2]);
        let due = assigned_at(&slow) + took + ACCEPT_TIMEOUT;
        assert_eq!(t.commits.last().unwrap().next_due, Some(due), "the timer looks again then");
        t.later(ACCEPT_TIMEOUT - Duration::from_millis(1));
        assert_eq!(t.tick().await, 0);
        t.later(Duration::from_millis(1));
        assert_eq!(t.tick().await, 2);
        assert_eq!([t.state(earlier.id).await, t.state(slow.id).await], [State::Queued; 2]);
    });
}

#[test]
fn slow_write_is_published_with_its_deadline() {
    let (ahead, takes) = (Micros::default(), Micros::default());
    drive(start(&ahead, &takes), async |t: &mut Harness| {
        t.agent("a").await;
        let worker = t.hello("w").await;
        let busy = Duration::from_millis(900);
        let first = assign(t, &worker, &takes, busy).await;
        let due = assigned_at(&first) + ACCEPT_TIMEOUT;
        assert_eq!(t.commits.last().unwrap().next_due, Some(due), "the store is only busy");
        let took = Duration::from_secs(12);
        assign(t, &worker, &takes, took).await;
        assert_eq!(t.commits.last().unwrap().next_due, Some(due + busy + took));
        // An accepted task has the deadlines of its limits.
        let attempt = AttemptRef { by: worker.clone(), fence: first.fence };
        t.ask(first.id, task::Command::Accept(attempt)).await.unwrap();
        assert_eq!(t.commits.last().unwrap().next_due, Some(due + busy + took));
    });
}

#[test]
fn clock_set_back_holds_no_assignment() {
    let (ahead, takes) = (Micros::default(), Micros::default());
    drive(start(&ahead, &takes), async |t: &mut Harness| {
        t.agent("a").await;
        let worker = t.hello("w").await;
        let first = assign(t, &worker, &takes, Duration::from_secs(12)).await;
        ahead.fetch_sub(micros(Duration::from_hours(1)), Ordering::Relaxed);
        let later = assign(t, &worker, &takes, Duration::ZERO).await;
        assert!(assigned_at(&later) < assigned_at(&first));
        let due = assigned_at(&later) + ACCEPT_TIMEOUT;
        assert_eq!(t.commits.last().unwrap().next_due, Some(due));
    });
}
