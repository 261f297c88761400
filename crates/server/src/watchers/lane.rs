//! Committed changes on their way to the buffer: references to records and log entries, for at most one interval and a
//! bounded number of bytes. Several changes of one task become one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::TaskKey;
use rota_core::task::{Event, Task};
use rota_store::{TaskChange, encoded_size};
use tokio::sync::Notify;

use super::MAX_CHUNK_BYTES;

/// Encoded bytes of a record besides its texts of any length.
const RECORD_BYTES: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Lane {
    pending: Mutex<Pending>,
    /// Held while changes are relayed, so that they stay in order.
    flushing: Mutex<()>,
    /// Wakes the relay when there are changes.
    pub(super) marked: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// In the order of their last positions; `None` where a later change of the same task took its place.
    changes: Vec<Option<Change>>,
    index: HashMap<TaskKey, usize>,
    /// About the size of the encoded changes.
    bytes: usize,
}

/// Changes of one task that were not relayed yet.
#[derive(Debug)]
pub(super) struct Change {
    /// The record after the last change.
    pub(super) task: Arc<Task>,
    events: Vec<Arc<[Event]>>,
    /// Position of the first change or log entry.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Whether it has its entries: those of one that is too large are left to the store.
    pub(super) complete: bool,
}

impl Change {
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().flat_map(|events| events.iter())
    }
}

impl Lane {
    /// Adds a change. Returns whether the lane is full and must be flushed.
    pub(super) fn add(&self, change: &TaskChange, first: u64, last: u64) -> bool {
        let mut pending = self.pending.lock();
        let position = pending.changes.len();
        let earlier = pending.index.insert(change.task.key, position);
        let earlier = earlier.and_then(|earlier| pending.changes[earlier].take());
        let known = earlier.as_ref().map_or(0, |earlier| record_size(&earlier.task));
        let (first, mut events, complete) = earlier
            .map_or((first, Vec::new(), true), |earlier| (earlier.first, earlier.events, earlier.complete));
        let (record, entries) = (record_size(&change.task), encoded_size(&change.events));
        let complete = complete && record + entries <= MAX_CHUNK_BYTES;
        if complete {
            events.push(Arc::clone(&change.events));
            // The newest record alone is sent.
            pending.bytes += record.saturating_sub(known) + entries;
        } else {
            events.clear();
            pending.bytes += RECORD_BYTES;
        }
        pending.changes.push(Some(Change { task: Arc::clone(&change.task), events, first, last, complete }));
        pending.bytes >= MAX_CHUNK_BYTES
    }

    /// Relays what is pending, in order.
    pub(super) fn flush(&self, relay: impl FnOnce(Vec<Change>)) {
        let _flushing = self.flushing.lock();
        let pending = std::mem::take(&mut *self.pending.lock());
        let changes: Vec<_> = pending.changes.into_iter().flatten().collect();
        if !changes.is_empty() {
            relay(changes);
        }
    }
}

/// Returns about the encoded size of a record.
fn record_size(task: &Task) -> usize {
    let labels: usize = task.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let questions = task.assignment.iter().flat_map(|assignment| &assignment.open_input);
    RECORD_BYTES + labels + questions.map(|(_, question)| question.len()).sum::<usize>()
}
