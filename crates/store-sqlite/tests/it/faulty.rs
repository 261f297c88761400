//! A transaction that fails on request, at any of its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::task::{Event, Task};
use rota_core::{AgentName, Namespace, RouteId, TaskId, Timestamp, WorkerName};
use rota_store::{Error, Session, Snapshot, WaitKey, WriteTxn};

/// When to fail; shared with the test.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Calls that succeed before the failing ones.
    good: AtomicU32,
    bad: AtomicU32,
    /// Commits that fail, whatever the calls do.
    bad_commits: AtomicU32,
    commits: AtomicU32,
    /// Whether commits wait, and how many do.
    gate: Mutex<(bool, u32)>,
    moved: Condvar,
}

impl Plan {
    pub(crate) fn fail(&self, after: u32, times: u32) {
        self.good.store(after, Ordering::Relaxed);
        self.bad.store(times, Ordering::Relaxed);
    }

    pub(crate) fn fail_commits(&self, times: u32) {
        self.bad_commits.store(times, Ordering::Relaxed);
    }

    pub(crate) fn commits(&self) -> u32 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Makes commits wait from now on.
    pub(crate) fn close(&self) {
        self.gate.lock().0 = true;
    }

    pub(crate) fn open(&self) {
        self.gate.lock().0 = false;
        self.moved.notify_all();
    }

    pub(crate) fn until_someone_waits(&self) {
        let mut gate = self.gate.lock();
        self.moved.wait_while(&mut gate, |(_, waiting)| *waiting == 0);
    }

    fn pass_gate(&self) {
        let mut gate = self.gate.lock();
        gate.1 += 1;
        self.moved.notify_all();
        self.moved.wait_while(&mut gate, |(closed, _)| *closed);
        gate.1 -= 1;
    }

    fn commit(&self) -> Result<(), Error> {
        self.pass_gate();
        self.commits.fetch_add(1, Ordering::Relaxed);
        let less = |count: u32| count.checked_sub(1);
        match self.bad_commits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Err(broken()),
            Err(_) => Ok(()),
        }
    }

    fn step(&self) -> Result<(), Error> {
        let less = |count: u32| count.checked_sub(1);
        if self.good.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
            || self.bad.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
        {
            return Ok(());
        }
        Err(broken())
    }
}

fn broken() -> Error {
    Error::Unavailable { message: "so the test wants it".to_owned(), hint: "none" }
}

#[derive(Debug)]
pub(crate) struct Faulty<T> {
    pub(crate) inner: T,
    pub(crate) plan: Arc<Plan>,
}

macro_rules! passed_on {
    ($(fn $name:ident(&mut self $(, $argument:ident: $type:ty)*) -> $out:ty;)*) => {
        $(fn $name(&mut self $(, $argument: $type)*) -> Result<$out, Error> {
            self.plan.step()?;
            self.inner.$name($($argument),*)
        })*
    };
}

impl<T: WriteTxn> WriteTxn for Faulty<T> {
    fn rollback(&mut self) {
        self.inner.rollback();
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.plan.commit()?;
        self.plan.step()?;
        self.inner.commit()
    }

    passed_on! {
        fn begin(&mut self) -> ();
        fn task(&mut self, id: TaskId) -> Option<Task>;
        fn insert_task(&mut self, task: &Task, route: RouteId, payload: &Bytes) -> ();
        fn update_task(&mut self, task: &Task, route: RouteId) -> ();
        fn delete_task(&mut self, task: &Task, now: Timestamp) -> ();
        fn append(&mut self, id: TaskId, events: &[Event]) -> u64;
        fn payload(&mut self, id: TaskId) -> Option<Bytes>;
        fn put_result(&mut self, id: TaskId, result: &Bytes) -> ();
        fn result(&mut self, id: TaskId) -> Option<Bytes>;
        fn put_secrets(&mut self, id: TaskId, secrets: &Bytes) -> ();
        fn secrets(&mut self, id: TaskId) -> Option<Bytes>;
        fn delete_secrets(&mut self, id: TaskId) -> ();
        fn ready(&mut self, route: RouteId, limit: usize) -> Vec<(i64, TaskId)>;
        fn due(&mut self, now: Timestamp, limit: usize) -> Vec<TaskId>;
        fn next_due(&mut self) -> Option<Timestamp>;
        fn ended_before(&mut self, before: Timestamp, limit: usize) -> Vec<TaskId>;
        fn add_route(&mut self, route: &Route) -> RouteId;
        fn delete_route(&mut self, id: RouteId) -> ();
        fn newest(&mut self, namespace: &Namespace, alias: &str) -> Option<TaskId>;
        fn put_alias(&mut self, namespace: &Namespace, alias: &str, id: TaskId) -> ();
        fn key(&mut self, namespace: &Namespace, key: &str) -> Option<TaskId>;
        fn put_key(&mut self, namespace: &Namespace, key: &str, id: TaskId) -> ();
        fn delete_keys(&mut self, before: Timestamp, limit: usize) -> usize;
        fn put_wait(&mut self, namespace: &Namespace, key: &WaitKey, waiter: TaskId) -> ();
        fn take_waits(&mut self, namespace: &Namespace, key: &WaitKey) -> Vec<TaskId>;
        fn put_edge(&mut self, id: TaskId, dependent: TaskId) -> ();
        fn take_edges(&mut self, id: TaskId) -> Vec<TaskId>;
        fn put_agent(&mut self, agent: &Agent) -> ();
        fn delete_agent(&mut self, namespace: &Namespace, name: &AgentName) -> ();
        fn session(&mut self, namespace: &Namespace, worker: &WorkerName) -> Option<Session>;
        fn put_session(&mut self, session: &Session) -> ();
        fn delete_sessions(&mut self, before: Timestamp, limit: usize) -> usize;
        fn snapshot(&mut self) -> Snapshot;
    }
}
