//! Watchers of tasks. What was committed is encoded once for all watchers of the same topic, and kept for a while in a
//! buffer that is bounded in bytes. A watcher takes from it by position; one that was too slow reads the store until it has
//! caught up. A watcher that stands still holds nothing, and delays neither commits nor other watchers.
//!
//! A commit leaves references to its changes with a [`Lane`], which a background task encodes and relays. Only when a lane
//! is full does the commit itself do that. Knows the messages (`messages`), but no streams, no store and no clock: `now` is the
//! time of the store, which tokens have.

mod buffer;
mod deltas;
mod lane;
pub(crate) mod messages;
#[cfg(test)]
mod tests;
mod workflow_log;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rota_core::task::Event;
use rota_core::{Namespace, Timestamp};
use rota_store::{Commit, encoded_size};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::buffer::{Buffer, Chunk, Taken};
pub(crate) use self::deltas::{Deltas, Follower};
use self::lane::{Change, Lane};
pub(crate) use self::workflow_log::{Gap, WorkflowChange, WorkflowLog};
use crate::lineage::Lineage;

#[cfg(test)]
pub(crate) use self::buffer::MAX_BUFFER_BYTES;
pub(crate) use self::buffer::{Form, Topic, is_managed};

/// Bytes of encoded messages after which a chunk ends; it has less than twice as many. A change that exceeds them is read
/// from the store, in pages.
pub(crate) const MAX_CHUNK_BYTES: usize = 256 << 10;
/// Least time between two chunks of a topic with many tasks. Changes of one task within it become one message.
const FEED_INTERVAL: Duration = Duration::from_millis(10);
/// The same while a feed is busy, at least and at most: each chunk costs every watcher a wake-up and a system call on either side.
const BUSY_FEED_INTERVALS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// What each watcher of a feed adds to it.
const BUSY_FEED_INTERVAL_PER_WATCHER: Duration = Duration::from_millis(2);
/// Changed tasks in a chunk after which a feed counts as busy.
const BUSY_FEED_CHANGES: usize = 64;

/// Topics with their watchers, and recent changes of each.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    lineage: Lineage,
    buffer: Mutex<Buffer>,
    /// Changes for watchers of one task. Positions are those of its log. Relayed immediately.
    tasks: Lane,
    /// Changes for watchers of many tasks. Positions are revisions. Relayed once per [`FEED_INTERVAL`], or less often.
    feeds: Lane,
    /// Changes for watchers of workflows. Positions are revisions.
    workflows: WorkflowLog,
    /// Number of messages encoded for topics.
    encoded: AtomicU64,
    /// Number of pages that watchers of many tasks have read from the store.
    reads: AtomicU64,
}

impl Watchers {
    /// Creates the watchers of a control plane, whose positions are those of its store. Changes after `revision` are published.
    pub(crate) fn new(lineage: Lineage, revision: u64) -> Self {
        // The beginning of the run itself is a commit, and no change of a workflow.
        let complete = if revision <= lineage.began() + 1 { lineage.began() } else { revision };
        Self { workflows: WorkflowLog::new(complete), lineage, ..Self::default() }
    }

    /// Returns the latest changes of workflows.
    pub(crate) fn workflows(&self) -> &WorkflowLog {
        &self.workflows
    }

    /// Returns whether feeds of workflows are watched: of a namespace, or of any without one.
    pub(crate) fn watches_workflows(&self, namespace: Option<&Namespace>) -> bool {
        !self.buffer.lock().workflow_feeds(namespace).is_empty()
    }

    /// Relays messages with all changes of workflows after a revision, each with the revision of its change. One without a
    /// namespace or a message makes the watchers read the log.
    pub(crate) fn relay_workflows(
        &self,
        after: u64,
        messages: Vec<(Option<Namespace>, u64, Option<Vec<u8>>)>,
        now: Timestamp,
    ) {
        let mut buffer = self.buffer.lock();
        let mut opened = Vec::new();
        for (namespace, revision, message) in messages {
            for topic in buffer.workflow_feeds(namespace.as_ref()) {
                if buffer.append(&topic, after, revision, message.as_deref()) {
                    opened.push(topic);
                }
            }
        }
        drop(buffer);
        self.seal(opened, now);
    }

    /// Returns the store that positions refer to.
    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Subscribes to a topic. What was committed before must be read from the store afterwards.
    pub(crate) fn subscribe(self: &Arc<Self>, topic: Topic) -> Subscription {
        let changed = self.buffer.lock().subscribe(&topic);
        Subscription { watchers: Arc::clone(self), topic, changed }
    }

    /// Registers the changes of a commit. Costs work for each change of a watched topic, and none for each watcher.
    pub(crate) fn publish(&self, commit: &Commit, now: Timestamp) {
        self.workflows.observe(commit);
        let (mut of_task, mut of_many) = (false, false);
        // One who subscribes after that reads the commit from the store.
        let watched: Vec<_> = {
            let buffer = self.buffer.lock();
            commit.tasks.iter().map(|change| buffer.watched(&change.task)).collect()
        };
        for (change, (task, feeds)) in commit.tasks.iter().zip(watched) {
            let (Some(first), Some(last)) = (change.events.first(), change.events.last()) else { continue };
            if task {
                of_task = true;
                if self.tasks.add(change, first.log_seq, last.log_seq) {
                    self.flush_tasks(now);
                }
            }
            if feeds {
                of_many = true;
                if self.feeds.add(change, change.revision, change.revision) {
                    self.flush_feeds(now);
                }
            }
        }
        if of_task {
            self.tasks.marked.notify_one();
        }
        if of_many {
            self.feeds.marked.notify_one();
        }
    }

    /// Relays changes to the watchers until `stop` is cancelled.
    pub(crate) async fn run(&self, now: impl Fn() -> Timestamp, stop: CancellationToken) {
        let tasks = async {
            loop {
                self.tasks.marked.notified().await;
                self.flush_tasks(now());
            }
        };
        let feeds = async {
            loop {
                self.feeds.marked.notified().await;
                let busy = self.flush_feeds(now()) >= BUSY_FEED_CHANGES;
                tokio::time::sleep(if busy { self.busy_feed_interval() } else { FEED_INTERVAL }).await;
            }
        };
        stop.run_until_cancelled(async { tokio::join!(tasks, feeds) }).await;
    }

    /// Returns the time between two chunks of a busy feed, by the number of watchers of all feeds.
    fn busy_feed_interval(&self) -> Duration {
        let watchers = u32::try_from(self.buffer.lock().feed_watchers).unwrap_or(u32::MAX);
        let [least, most] = BUSY_FEED_INTERVALS;
        BUSY_FEED_INTERVAL_PER_WATCHER.saturating_mul(watchers).clamp(least, most)
    }

    fn flush_tasks(&self, now: Timestamp) {
        self.tasks.flush(|changes| {
            let mut opened = Vec::new();
            for change in changes {
                let topic = Topic::Task(change.task.key);
                // The result, which the last message contains, is read from the store.
                let message = (change.complete && !change.task.state.is_final())
                    .then(|| self.encode(|out| messages::log(out, &change.task, change.events(), None)));
                self.append(topic, &change, message.as_deref(), &mut opened);
            }
            self.seal(opened, now);
        });
    }

    /// Relays the changes for watchers of many tasks. Returns of how many tasks.
    fn flush_feeds(&self, now: Timestamp) -> usize {
        let mut count = 0;
        self.feeds.flush(|changes| {
            count = changes.len();
            let seen = resume_points(&changes);
            let mut opened = Vec::new();
            for (change, seen) in changes.into_iter().zip(seen) {
                for states_only in [false, true] {
                    let topics: Vec<_> = self.buffer.lock().feeds(&change.task, states_only).collect();
                    if topics.is_empty() {
                        continue;
                    }
                    let wanted = change.events().filter(|event| !states_only || messages::is_state(event));
                    let encoded = change
                        .complete
                        .then(|| self.encode(|out| messages::change(out, &change.task, wanted)));
                    for topic in topics {
                        let message = encoded.as_deref().map(|encoded| match topic.form() {
                            Form::Single => {
                                messages::single(encoded, || messages::token(&self.lineage, seen, now))
                            }
                            Form::Batched | Form::Compressed => messages::entry(encoded),
                        });
                        self.append(topic, &change, message.as_deref(), &mut opened);
                    }
                }
            }
            self.seal(opened, now);
        });
        count
    }

    /// Makes the open chunks of topics visible to their watchers.
    fn seal(&self, opened: Vec<Topic>, now: Timestamp) {
        for topic in opened {
            // Without the lock, for which commits would wait.
            let open = self.buffer.lock().take_open(&topic);
            let Some(Chunk { start, end, bytes }) = open else { continue };
            let token = || messages::token(&self.lineage, end, now);
            let bytes = bytes.map(|bytes| match topic.form() {
                Form::Single => bytes,
                Form::Batched => messages::batch(bytes, &token(), false),
                Form::Compressed => messages::batch(bytes, &token(), true),
            });
            // Without spare capacity, so that the chunk has the size that is counted.
            let bytes = bytes.map(|bytes| Bytes::from(bytes.into_boxed_slice()));
            self.buffer.lock().push(topic, Chunk { start, end, bytes });
        }
    }

    fn encode(&self, message: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        message(&mut bytes);
        if !bytes.is_empty() {
            self.encoded.fetch_add(1, Ordering::Relaxed);
        }
        bytes
    }

    fn append(&self, topic: Topic, change: &Change, message: Option<&[u8]>, opened: &mut Vec<Topic>) {
        if self.buffer.lock().append(&topic, change.first.saturating_sub(1), change.last, message) {
            opened.push(topic);
        }
    }
}

/// What the watchers hold and have done.
#[cfg(test)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) bytes: usize,
    pub(crate) chunks: usize,
    pub(crate) encoded: u64,
    pub(crate) reads: u64,
}

#[cfg(test)]
impl Watchers {
    pub(crate) fn stats(&self) -> Stats {
        let (bytes, chunks) = self.buffer.lock().size();
        Stats {
            bytes,
            chunks,
            encoded: self.encoded.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
        }
    }

    /// Relays what is pending now.
    pub(crate) fn flush(&self) {
        self.flush_tasks(Timestamp::default());
        self.flush_feeds(Timestamp::default());
    }

    pub(crate) fn evict_oldest(&self) {
        self.buffer.lock().evict_oldest();
    }
}

/// Returns, for each change, the last revision of which nothing is left after it.
fn resume_points(changes: &[Change]) -> Vec<u64> {
    let mut seen = changes.last().map_or(0, |change| change.last);
    let mut points: Vec<_> = changes
        .iter()
        .rev()
        .map(|change| {
            let point = seen;
            seen = seen.min(change.first.saturating_sub(1));
            point
        })
        .collect();
    points.reverse();
    points
}

/// Whether log entries are too large to be one message.
pub(crate) fn is_oversized(events: &[Event]) -> bool {
    encoded_size(events) > MAX_CHUNK_BYTES
}

/// A watcher of a topic. It holds no messages.
#[derive(Debug)]
pub(crate) struct Subscription {
    watchers: Arc<Watchers>,
    topic: Topic,
    changed: watch::Receiver<()>,
}

/// What a watcher receives after a position.
#[derive(Debug)]
pub(crate) enum Next {
    /// Encoded messages, and the position of the last one.
    Chunk(Bytes, u64),
    /// The buffer does not have it: everything up to this position must be read from the store.
    Missing(u64),
}

impl Subscription {
    /// Waits for what follows a position.
    pub(crate) async fn next(&mut self, seen: u64) -> Next {
        loop {
            self.changed.mark_unchanged();
            let taken = self.watchers.buffer.lock().take(&self.topic, seen);
            match taken {
                Taken::Chunk(bytes, end) => return Next::Chunk(bytes, end),
                Taken::Missing(end) => return Next::Missing(end),
                Taken::Nothing => drop(self.changed.changed().await),
            }
        }
    }
}

impl Subscription {
    /// Counts a page that the watcher reads from the store.
    pub(crate) fn count_read(&self) {
        self.watchers.reads.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.watchers.buffer.lock().unsubscribe(&self.topic);
    }
}
