//! A backend that fails on request, at any of its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Condvar, Mutex};
use rota_store::{Backend, Changes, Error, Load, Loaded, Snapshot, Written};

/// When to fail; shared with the test.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Calls that succeed before the failing ones.
    good: AtomicU32,
    bad: AtomicU32,
    /// Commits that fail, whatever the calls do.
    bad_commits: AtomicU32,
    commits: AtomicU32,
    /// Whether the next commit fails in the disk's sync.
    bad_sync: AtomicBool,
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

    pub(crate) fn fail_sync(&self) {
        self.bad_sync.store(true, Ordering::Relaxed);
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
        if self.bad_sync.load(Ordering::Relaxed) {
            return Err(Error::LostSync("so the test wants it".to_owned()));
        }
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
pub(crate) struct Faulty<B> {
    pub(crate) inner: B,
    pub(crate) plan: Arc<Plan>,
}

impl<B: Backend> Backend for Faulty<B> {
    fn load(&mut self, load: &Load) -> Result<Loaded, Error> {
        self.plan.step()?;
        self.inner.load(load)
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        self.plan.commit()?;
        self.plan.step()?;
        self.inner.write(changes)
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.plan.step()?;
        self.inner.snapshot()
    }
}
