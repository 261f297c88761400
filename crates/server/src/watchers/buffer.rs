//! Buffer of recent changes, encoded, by topic. One bound of bytes holds for all topics together: the oldest chunks of any
//! topic are evicted first. No step takes time in proportion to the number of topics or watchers, except that the watchers
//! of a topic are woken with its new chunk.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use rota_core::task::Task;
use rota_core::{Namespace, TaskKey};
use rota_proto::labels::CLUSTER;
use tokio::sync::watch;

use super::MAX_CHUNK_BYTES;

/// Capacity in bytes, over the chunks of all topics.
pub(crate) const MAX_BUFFER_BYTES: usize = 16 << 20;
/// Capacity in chunks, over all topics.
pub(super) const MAX_CHUNKS: usize = 16 << 10;

/// Whether a task belongs to a resource of a cluster.
pub(crate) fn is_managed(task: &Task) -> bool {
    task.labels.contains_key(CLUSTER)
}

/// How the changes of a feed are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Each in a message of its own.
    Single,
    /// Those of a chunk in one message.
    Batched,
    /// The same, compressed with gzip.
    Compressed,
}

impl Form {
    const ALL: [Self; 3] = [Self::Single, Self::Batched, Self::Compressed];
}

/// What a watcher watches; watchers of equal topics share their messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Task(TaskKey),
    Feed {
        /// The namespace of the tasks; all namespaces if `None`.
        namespace: Option<Namespace>,
        states_only: bool,
        /// Only tasks that a cluster manages.
        managed_only: bool,
        form: Form,
    },
    /// Workflows of a namespace; of all if `None`.
    Workflows(Option<Namespace>),
}

impl Topic {
    fn is_feed(&self) -> bool {
        matches!(self, Self::Feed { .. })
    }

    pub(super) fn form(&self) -> Form {
        match self {
            Self::Feed { form, .. } => *form,
            Self::Task(_) | Self::Workflows(_) => Form::Single,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Chunks of the topics that have watchers.
    rings: HashMap<Topic, Ring>,
    /// The topic of each chunk, oldest first. May name topics without chunks.
    order: VecDeque<Topic>,
    bytes: usize,
    /// Number of watched feeds, by `states_only` and form.
    feeds: [[usize; Form::ALL.len()]; 2],
    /// Number of watchers of feeds.
    pub(super) feed_watchers: usize,
}

/// Chunks of a topic, in the order of their positions.
#[derive(Debug)]
struct Ring {
    watchers: usize,
    /// Wakes the watchers when a chunk was added.
    changed: watch::Sender<()>,
    chunks: VecDeque<Chunk<Bytes>>,
    /// The chunk that is being written.
    open: Option<Chunk<Vec<u8>>>,
    /// End of the last evicted chunk.
    evicted: u64,
}

/// Messages with all changes of a topic after `start` up to `end`. They are taken as a whole.
#[derive(Debug)]
pub(super) struct Chunk<B> {
    pub(super) start: u64,
    pub(super) end: u64,
    /// `None` if they are too large.
    pub(super) bytes: Option<B>,
}

impl Chunk<Bytes> {
    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, Bytes::len)
    }
}

/// What the buffer has after a position.
#[derive(Debug)]
pub(super) enum Taken {
    /// A chunk and its end.
    Chunk(Bytes, u64),
    /// Changes up to this position, which it has not.
    Missing(u64),
    Nothing,
}

impl Buffer {
    pub(super) fn subscribe(&mut self, topic: &Topic) -> watch::Receiver<()> {
        if let (false, Some(count)) = (self.rings.contains_key(topic), self.count(topic)) {
            *count += 1;
        }
        let ring = self.rings.entry(topic.clone()).or_insert_with(|| Ring {
            watchers: 0,
            changed: watch::channel(()).0,
            chunks: VecDeque::new(),
            open: None,
            evicted: 0,
        });
        ring.watchers += 1;
        self.feed_watchers += usize::from(topic.is_feed());
        ring.changed.subscribe()
    }

    /// Removes a watcher. The last one takes the topic with it.
    pub(super) fn unsubscribe(&mut self, topic: &Topic) {
        let Some(ring) = self.rings.get_mut(topic) else { return };
        ring.watchers -= 1;
        self.feed_watchers -= usize::from(topic.is_feed());
        if ring.watchers == 0 {
            self.bytes -= ring.chunks.iter().map(Chunk::len).sum::<usize>();
            self.rings.remove(topic);
            if let Some(count) = self.count(topic) {
                *count -= 1;
            }
        }
    }

    /// Returns the number of watched feeds that are like a topic.
    fn count(&mut self, topic: &Topic) -> Option<&mut usize> {
        let Topic::Feed { states_only, form, .. } = topic else { return None };
        Some(&mut self.feeds[usize::from(*states_only)][*form as usize])
    }

    /// Returns whether a task itself is watched, and whether a feed with it is.
    pub(super) fn watched(&self, task: &Task) -> (bool, bool) {
        if self.rings.is_empty() {
            return (false, false);
        }
        let feeds =
            [false, true].into_iter().any(|states_only| self.feeds(task, states_only).next().is_some());
        (self.rings.contains_key(&Topic::Task(task.key)), feeds)
    }

    /// Returns the watched feeds that include a task, each when it is asked for.
    pub(super) fn feeds<'a>(&'a self, task: &'a Task, states_only: bool) -> impl Iterator<Item = Topic> + 'a {
        let counts = &self.feeds[usize::from(states_only)];
        let forms = Form::ALL.into_iter().filter(move |form| counts[*form as usize] > 0);
        let feeds = forms.flat_map(move |form| {
            let scopes = if is_managed(task) { &[false, true][..] } else { &[false] };
            scopes.iter().flat_map(move |&managed_only| {
                let namespaces =
                    [false, true].into_iter().map(move |own| own.then(|| task.namespace.clone()));
                namespaces.map(move |namespace| Topic::Feed { namespace, states_only, managed_only, form })
            })
        });
        feeds.filter(move |feed| self.rings.contains_key(feed))
    }

    /// Returns the watched feeds of the workflows of a namespace; those of any without one.
    pub(super) fn workflow_feeds(&self, namespace: Option<&Namespace>) -> Vec<Topic> {
        match namespace {
            Some(own) => {
                let feeds = [None, Some(own.clone())].map(Topic::Workflows);
                feeds.into_iter().filter(|feed| self.rings.contains_key(feed)).collect()
            }
            None => self.rings.keys().filter(|topic| matches!(topic, Topic::Workflows(_))).cloned().collect(),
        }
    }

    /// Adds a message with the changes after `start` up to `end` to the open chunk of a topic; `None` for one that is too
    /// large. Returns whether it opened the chunk.
    pub(super) fn append(&mut self, topic: &Topic, start: u64, end: u64, message: Option<&[u8]>) -> bool {
        let Some(ring) = self.rings.get_mut(topic) else { return false };
        if message.is_some_and(<[u8]>::is_empty) {
            return false;
        }
        let opens = ring.open.is_none();
        let open = ring.open.get_or_insert_with(|| Chunk { start, end, bytes: Some(Vec::new()) });
        open.start = open.start.min(start);
        open.end = open.end.max(end);
        match (message, &mut open.bytes) {
            (Some(message), Some(bytes)) if bytes.len() + message.len() < 2 * MAX_CHUNK_BYTES => {
                bytes.extend_from_slice(message);
            }
            _ => open.bytes = None,
        }
        opens
    }

    /// Takes the open chunk of a topic, to finish it.
    pub(super) fn take_open(&mut self, topic: &Topic) -> Option<Chunk<Vec<u8>>> {
        self.rings.get_mut(topic)?.open.take()
    }

    /// Makes a finished chunk visible to the watchers of its topic.
    pub(super) fn push(&mut self, topic: Topic, chunk: Chunk<Bytes>) {
        let Some(ring) = self.rings.get_mut(&topic) else { return };
        self.bytes += chunk.len();
        ring.chunks.push_back(chunk);
        ring.changed.send_replace(());
        self.order.push_back(topic);
        while (self.bytes > MAX_BUFFER_BYTES || self.order.len() > MAX_CHUNKS) && self.evict_oldest() {}
    }

    /// Evicts the oldest chunk. Returns whether there may be another.
    pub(super) fn evict_oldest(&mut self) -> bool {
        let Some(topic) = self.order.pop_front() else { return false };
        // A topic without watchers was removed, with its chunks.
        if let Some(ring) = self.rings.get_mut(&topic)
            && let Some(chunk) = ring.chunks.pop_front()
        {
            self.bytes -= chunk.len();
            ring.evicted = chunk.end;
        }
        true
    }

    /// Returns what follows a position of a topic.
    pub(super) fn take(&self, topic: &Topic, seen: u64) -> Taken {
        let Some(ring) = self.rings.get(topic) else { return Taken::Nothing };
        if seen < ring.evicted {
            return Taken::Missing(ring.evicted);
        }
        let next = ring.chunks.partition_point(|chunk| chunk.end <= seen);
        match ring.chunks.get(next) {
            None => Taken::Nothing,
            Some(Chunk { start, end, bytes: Some(bytes) }) if seen <= *start => {
                Taken::Chunk(bytes.clone(), *end)
            }
            // Too large, or begun before the position: the rest of it is in the store, too.
            Some(chunk) => Taken::Missing(chunk.end),
        }
    }

    /// Returns the number of bytes and of chunks.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let chunks = || self.rings.values().flat_map(|ring| &ring.chunks);
        assert_eq!(self.bytes, chunks().map(Chunk::len).sum::<usize>());
        (self.bytes, chunks().count())
    }
}
