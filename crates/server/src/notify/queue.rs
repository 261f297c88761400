//! Bounded queue of one receiver, and its position: what was taken in and is not delivered holds the position back. Knows no
//! transport.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::Namespace;
use rota_store::{Budget, FeedPage};
use tokio::sync::Notify;

use super::message::{self, Notification, Place};
use super::sink::Sink;
use crate::store_client::StoreClient;

/// Notifications that wait in memory; further ones are read from the store later.
const MAX_WAITING: usize = 256;
/// Revisions without an occasion after which the position is kept.
const MAX_BEHIND: u64 = 10_000;
const PAGE: Budget = Budget { entries: 128, bytes: 1 << 20 };

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Arc<Notification>>,
    /// Revision and log position of everything that was taken in and is not delivered.
    open: BTreeSet<(u64, u64)>,
    /// Revision up to which everything was taken in.
    reached: u64,
    /// Last revision that was observed.
    observed: u64,
    /// Revision after which the store is read, while something in it was not taken in.
    behind: Option<u64>,
    /// Last revision that the store must have been read up to.
    skipped: u64,
    /// Namespaces of those that were observed and are to be read from the store, with the last revision of each.
    skipped_of: BTreeMap<Namespace, u64>,
    /// Position at the last look at it.
    position: u64,
}

enum Step {
    Take(Arc<Notification>),
    /// Read the store after a revision; `skipped` is the last one that is known to be in it.
    Read {
        after: u64,
        skipped: u64,
    },
    Wait,
}

/// Returns the place of a notification about a task; there are no others in the queue.
fn feed_place(one: &Notification) -> Option<(u64, u64)> {
    match one.place {
        Place::Feed(revision, log_seq) => Some((revision, log_seq)),
        Place::Workflow(_) => None,
    }
}

impl Inner {
    fn add(&mut self, one: Arc<Notification>) {
        self.open.extend(feed_place(&one));
        self.waiting.push_back(one);
    }

    fn position(&self) -> u64 {
        self.open.first().map_or(self.reached, |(revision, _)| revision.saturating_sub(1).min(self.reached))
    }
}

impl Queue {
    /// Creates a queue of a receiver that has everything up to a position; the store is at `revision`.
    pub(super) fn new(position: u64, revision: u64) -> Self {
        let inner = Inner {
            waiting: VecDeque::new(),
            open: BTreeSet::new(),
            reached: position,
            observed: revision,
            behind: (position < revision).then_some(position),
            skipped: revision,
            skipped_of: BTreeMap::new(),
            position,
        };
        Self { inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// Takes in the occasions of a commit, as far as there is room. Returns whether the position has moved on so far without any
    /// that it is to be kept.
    #[must_use]
    pub(super) fn observe(&self, revision: u64, wanted: impl Iterator<Item = Arc<Notification>>) -> bool {
        let mut inner = self.inner.lock();
        inner.observed = inner.observed.max(revision);
        let mut changed = false;
        for one in wanted {
            changed = true;
            let at = feed_place(&one).map_or(revision, |(at, _)| at);
            if inner.behind.is_none() && inner.waiting.len() >= MAX_WAITING {
                inner.behind = Some(at.saturating_sub(1));
            }
            if inner.behind.is_some() {
                inner.skipped = inner.skipped.max(at);
                inner.skipped_of.insert(one.namespace.clone(), at);
            } else if at > inner.reached {
                inner.add(one);
            }
            // Otherwise it was read from the store before.
        }
        if inner.behind.is_none() {
            inner.reached = inner.reached.max(revision);
        }
        let moved = inner.position().saturating_sub(inner.position) > MAX_BEHIND;
        drop(inner);
        if changed {
            self.wake.notify_one();
        }
        moved
    }

    /// Returns the next notification; waits until there is one.
    pub(super) async fn next(
        &self,
        sink: &Sink,
        store: &StoreClient,
    ) -> Result<Arc<Notification>, rota_store::Error> {
        loop {
            let step = {
                let mut inner = self.inner.lock();
                if let Some(next) = inner.waiting.pop_front() {
                    Step::Take(next)
                } else if let Some(after) = inner.behind {
                    Step::Read { after, skipped: inner.skipped }
                } else {
                    inner.reached = inner.reached.max(inner.observed);
                    Step::Wait
                }
            };
            match step {
                Step::Take(next) => return Ok(next),
                Step::Read { after, skipped } => {
                    let page = store.reads().feed(after, PAGE).await?;
                    self.read(after, skipped, page, sink);
                }
                Step::Wait => self.wake.notified().await,
            }
        }
    }

    /// Takes in a page of the store's feed.
    fn read(&self, after: u64, skipped: u64, page: FeedPage, sink: &Sink) {
        let last = page.entries.last().map_or(after, |entry| entry.revision);
        // The last page has everything that was committed before it was read.
        let through = if page.more { last } else { last.max(skipped) };
        let found = page.entries.iter().flat_map(message::of_entry);
        let mut inner = self.inner.lock();
        for one in found.filter(|one| sink.wants(one)) {
            if feed_place(&one).is_none_or(|place| !inner.open.contains(&place)) {
                inner.add(Arc::new(one));
            }
        }
        inner.reached = inner.reached.max(through);
        inner.skipped_of.retain(|_, at| *at > through);
        inner.behind = (page.more || inner.skipped > through).then_some(through);
    }

    /// Whether notifications of other namespaces are known to wait to be taken.
    pub(super) fn has_others(&self, namespace: &Namespace) -> bool {
        let inner = self.inner.lock();
        inner.waiting.iter().any(|one| one.namespace != *namespace)
            || inner.skipped_of.keys().any(|other| other != namespace)
    }

    /// Forgets a delivered notification, or one that was given up.
    pub(super) fn done(&self, place: (u64, u64)) {
        self.inner.lock().open.remove(&place);
    }

    /// Returns the revision up to which everything was delivered.
    pub(super) fn position(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.position = inner.position();
        inner.position
    }

    /// Returns the number of notifications in memory that are not delivered.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().open.len()
    }
}

#[cfg(test)]
mod tests {
    use rota_core::TaskKey;

    use super::*;

    #[test]
    fn other_namespaces_are_known_also_when_skipped() {
        let observe = |queue: &Queue, at: u64, namespace: &str| {
            let mut one = Notification::example(TaskKey(1), namespace, "", "");
            one.place = Place::Feed(at, 1);
            let _moved = queue.observe(at, std::iter::once(Arc::new(one)));
        };
        let (queue, failing) = (Queue::new(0, 0), Namespace::new("failing").unwrap());
        (1..1000).for_each(|at| observe(&queue, at, "failing"));
        assert!(!queue.has_others(&failing), "a single namespace");
        observe(&queue, 1000, "sound");
        assert!(queue.has_others(&failing), "one that is to be read from the store");
        let queue = Queue::new(0, 0);
        observe(&queue, 1, "sound");
        assert!(queue.has_others(&failing) && !queue.has_others(&Namespace::new("sound").unwrap()));
    }

    #[test]
    fn position_of_quiet_receiver_moves_on() {
        let queue = Queue::new(7, 7);
        let moved: Vec<_> = (8..=20_010).filter(|at| queue.observe(*at, std::iter::empty())).collect();
        assert_eq!(moved.first(), Some(&(7 + MAX_BEHIND + 1)), "it is kept after so many");
        assert_eq!(queue.position(), 20_010);
        assert!(!queue.observe(20_011, std::iter::empty()), "it was kept");
    }
}
