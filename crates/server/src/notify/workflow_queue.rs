//! Bounded queue of the occasions in workflows that one receiver has not been notified of, and its position in time: what was
//! taken in and is not delivered holds the position back. What has no room, and what was committed before a start, is found in
//! the store.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::Timestamp;
use tokio::sync::Notify;

use super::message::Notification;
use super::sink::Sink;
use super::workflows::{self, Place};
use crate::store_client::StoreClient;

/// Occasions that wait in memory, of a few bytes each.
const MAX_WAITING: usize = 4096;

#[derive(Debug)]
pub(super) struct WorkflowQueue {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Place>,
    /// Everything that was taken in and is not delivered.
    open: BTreeSet<Place>,
    /// Time up to which everything was taken in.
    reached: Timestamp,
    /// Place after which the store has more.
    behind: Option<Place>,
    /// Earliest occasion that was observed since, and not taken in.
    skipped: Option<Timestamp>,
}

impl Inner {
    fn add(&mut self, place: Place) {
        self.reached = self.reached.max(place.0);
        if self.open.insert(place) {
            self.waiting.push_back(place);
        }
    }
}

enum Next {
    Resolve(Place),
    Look(Place),
    Wait,
}

impl WorkflowQueue {
    /// Creates a queue of a receiver that has everything up to a time; `None` begins with the next commit.
    pub(super) fn new(position: Option<Timestamp>, now: Timestamp) -> Self {
        let inner = Inner {
            waiting: VecDeque::new(),
            open: BTreeSet::new(),
            reached: position.unwrap_or(now),
            behind: position.map(workflows::before),
            skipped: None,
        };
        Self { inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// Takes in the occasions of a commit, as far as there is room.
    pub(super) fn observe(&self, occasions: &[Place]) {
        if occasions.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        for place in occasions {
            if inner.behind.is_none() && inner.waiting.len() < MAX_WAITING {
                inner.add(*place);
                continue;
            }
            inner.skipped = Some(inner.skipped.map_or(place.0, |skipped| skipped.min(place.0)));
            if inner.behind.is_none() {
                inner.behind = inner.skipped.take().map(workflows::before);
            }
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// Returns the next notification that the receiver wants; waits until there is one. Nothing is lost if the call is dropped.
    pub(super) async fn next(
        &self,
        sink: &Sink,
        store: &StoreClient,
    ) -> Result<Arc<Notification>, rota_store::Error> {
        loop {
            let next = {
                let inner = self.inner.lock();
                match (inner.waiting.front(), inner.behind) {
                    (Some(place), _) => Next::Resolve(*place),
                    (None, Some(after)) => Next::Look(after),
                    (None, None) => Next::Wait,
                }
            };
            match next {
                Next::Resolve(place) => {
                    let found = workflows::notification(store, place).await?;
                    let found = found.filter(|one| sink.wants(one));
                    let mut inner = self.inner.lock();
                    inner.waiting.pop_front();
                    match found {
                        Some(one) => return Ok(Arc::new(one)),
                        None => drop(inner.open.remove(&place)),
                    }
                }
                Next::Look(after) => {
                    let (found, more) = workflows::since(store, after).await?;
                    let mut inner = self.inner.lock();
                    let last = found.last().copied();
                    found.into_iter().for_each(|place| inner.add(place));
                    inner.behind = match last.filter(|_| more) {
                        Some(last) => Some(last),
                        // What was observed meanwhile may have been missed.
                        None => inner.skipped.take().map(workflows::before),
                    };
                }
                Next::Wait => self.wake.notified().await,
            }
        }
    }

    /// Forgets a delivered notification, or one that was given up.
    pub(super) fn done(&self, place: Place) {
        self.inner.lock().open.remove(&place);
    }

    /// Returns the time up to which everything was delivered.
    pub(super) fn position(&self) -> Timestamp {
        let inner = self.inner.lock();
        let open = inner.open.first().map(|(at, _)| *at);
        let behind = inner.behind.map(|(at, _)| at);
        [open, behind, inner.skipped].into_iter().flatten().fold(inner.reached, Timestamp::min)
    }

    /// Returns the number of occasions in memory of which the receiver was not notified.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().open.len()
    }
}

#[cfg(test)]
mod tests {
    use rota_core::WorkflowKey;

    use super::super::workflows::What;
    use super::*;

    fn place(at: i64) -> Place {
        (Timestamp(at), What::Ended(WorkflowKey(1)))
    }

    #[test]
    fn position_waits_for_what_is_open() {
        let queue = WorkflowQueue::new(None, Timestamp(10));
        assert_eq!(queue.position(), Timestamp(10));
        queue.observe(&[place(20), place(30)]);
        assert_eq!((queue.position(), queue.len()), (Timestamp(20), 2));
        queue.done(place(20));
        assert_eq!(queue.position(), Timestamp(30));
        queue.done(place(30));
        assert_eq!((queue.position(), queue.len()), (Timestamp(30), 0));
    }

    #[test]
    fn what_has_no_room_is_looked_for() {
        let queue = WorkflowQueue::new(None, Timestamp(0));
        let many = i64::try_from(MAX_WAITING).unwrap();
        queue.observe(&(1..=many + 5).map(place).collect::<Vec<_>>());
        assert_eq!(queue.len(), MAX_WAITING);
        assert_eq!(queue.inner.lock().behind, Some(workflows::before(Timestamp(many + 1))));
        (1..=many).for_each(|at| queue.done(place(at)));
        assert!(queue.position() < Timestamp(many + 1), "{:?}", queue.position());
    }

    #[test]
    fn known_position_is_looked_up() {
        let queue = WorkflowQueue::new(Some(Timestamp(5)), Timestamp(10));
        assert_eq!(queue.inner.lock().behind, Some(workflows::before(Timestamp(5))));
        assert!(queue.position() <= Timestamp(5));
    }
}
