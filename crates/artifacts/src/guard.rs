//! Which parts must stay, and which are being removed: between the check that a part is stored and the commit of the list that
//! refers to it, no sweep removes it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Digest;

/// A part in its namespace.
pub(crate) type Key = (Arc<str>, Digest);

#[derive(Debug, Default)]
pub(crate) struct Guard {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pinned: HashMap<Key, usize>,
    /// Parts that a sweep is removing, or that may still be removed by a call that did not end in time.
    condemned: HashSet<Key>,
    /// Sweeps that run, and what was pinned since the first of them began: a list that was committed meanwhile is not among those
    /// that a sweep has read.
    sweeps: usize,
    pinned_since: HashSet<Key>,
}

/// A sweep that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Sweeping(Arc<Guard>);

/// Keeps parts until it is dropped.
#[derive(Debug)]
pub struct Pin {
    guard: Arc<Guard>,
    keys: Vec<Key>,
}

impl Guard {
    pub(crate) fn pin(self: &Arc<Self>, keys: Vec<Key>) -> Pin {
        let mut state = self.state.lock();
        for key in &keys {
            *state.pinned.entry(key.clone()).or_default() += 1;
        }
        if state.sweeps > 0 {
            state.pinned_since.extend(keys.iter().cloned());
        }
        Pin { guard: Arc::clone(self), keys }
    }

    /// Begins a sweep, before it reads anything.
    pub(crate) fn sweep(self: &Arc<Self>) -> Sweeping {
        let mut state = self.state.lock();
        state.sweeps += 1;
        let pinned: Vec<_> = state.pinned.keys().cloned().collect();
        state.pinned_since.extend(pinned);
        Sweeping(Arc::clone(self))
    }

    /// Returns the parts that may still be removed by an earlier sweep.
    pub(crate) fn condemned(&self) -> HashSet<Key> {
        self.state.lock().condemned.clone()
    }

    /// Returns those of these parts that may be removed. They are not stored any more from now on, whatever a look shows.
    pub(crate) fn condemn(&self, keys: Vec<Key>) -> Vec<Key> {
        let mut state = self.state.lock();
        let free: Vec<_> = keys.into_iter().filter(|key| !state.pinned_since.contains(key)).collect();
        state.condemned.extend(free.iter().cloned());
        free
    }

    /// Ends the removal of these parts.
    pub(crate) fn removed<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        let mut state = self.state.lock();
        for key in keys {
            state.condemned.remove(key);
        }
    }

    pub(crate) fn is_condemned(&self, key: &Key) -> bool {
        self.state.lock().condemned.contains(key)
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.sweeps -= 1;
        if state.sweeps == 0 {
            state.pinned_since.clear();
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.guard.state.lock();
        for key in &self.keys {
            if let Some(count) = state.pinned.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(key);
                }
            }
        }
    }
}
