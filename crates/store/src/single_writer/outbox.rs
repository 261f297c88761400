//! Publication of commits.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::Commit;

/// Capacity of the channel of commits; a full one stops the writer.
const COMMIT_CHANNEL_CAPACITY: usize = 256;

/// Channel of commits. Without a reader, commits are dropped, so that the writer never waits for one.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    sender: Mutex<Option<mpsc::Sender<Commit>>>,
    taken: AtomicBool,
    ended: AtomicBool,
}

impl Outbox {
    pub(super) fn open(&self) -> Option<mpsc::Receiver<Commit>> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(COMMIT_CHANNEL_CAPACITY);
        let mut place = self.sender.lock();
        if !self.ended.load(Ordering::Relaxed) {
            *place = Some(sender);
        }
        Some(receiver)
    }

    fn end(&self) {
        let mut place = self.sender.lock();
        self.ended.store(true, Ordering::Relaxed);
        place.take();
    }

    pub(super) fn send(&self, commit: Commit) {
        let sender = self.sender.lock().clone();
        if let Some(sender) = sender
            && !commit.is_empty()
            && sender.blocking_send(commit).is_err()
        {
            // The reader was dropped.
            self.sender.lock().take();
        }
    }
}

/// Closes the channel of commits with the writer, also when it panics: the reader must not wait for more.
pub(super) struct CloseOnDrop<'a>(pub(super) &'a Outbox);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
