//! Parts of messages on their way from a worker to the watchers of its task. Nothing is stored: a watcher that is late or too slow
//! misses parts. A worker sends them only while its task is followed.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rota_core::task::{State, Task};
use rota_core::{Fence, Namespace, TaskId};
use rota_proto::worker::v1::{Follow, session_response::Kind};
use rota_proto::{framing, num, v1};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::keys::WorkerKey;
use crate::scheduler::{Scheduler, SessionHandle};

/// Parts of one task that a watcher may lag behind.
const MAX_LAG: usize = 32;
/// Bytes of a part at most. Workers send less.
const MAX_PART_BYTES: usize = 16 << 10;

type Key = (Namespace, TaskId);

#[derive(Debug)]
pub(crate) struct Deltas {
    scheduler: Arc<Scheduler>,
    topics: Mutex<HashMap<Key, Topic>>,
}

#[derive(Debug)]
struct Topic {
    parts: broadcast::Sender<Bytes>,
    watchers: usize,
    /// The attempt whose worker was asked for parts.
    asked: Option<(WorkerKey, Fence)>,
}

impl Deltas {
    pub(crate) fn new(scheduler: Arc<Scheduler>) -> Self {
        Self { scheduler, topics: Mutex::default() }
    }

    /// Follows the messages of a task. Its record must be read afterwards, and passed to [`Follower::begin`].
    pub(crate) fn follow(self: &Arc<Self>, namespace: Namespace, id: TaskId) -> Follower {
        let key = (namespace, id);
        let mut topics = self.topics.lock();
        let topic = topics.entry(key.clone()).or_insert_with(|| Topic {
            parts: broadcast::channel(MAX_LAG).0,
            watchers: 0,
            asked: None,
        });
        topic.watchers += 1;
        Follower { deltas: Arc::clone(self), parts: topic.parts.subscribe(), key }
    }

    /// Asks the worker of an attempt for parts, if its task is followed.
    pub(crate) fn ask(&self, worker: &WorkerKey, id: TaskId, fence: Fence, session: &SessionHandle) {
        let mut topics = self.topics.lock();
        if let Some(topic) = topics.get_mut(&(worker.0.clone(), id)) {
            topic.asked = Some((worker.clone(), fence));
            session.send(follow(id, fence, true));
        }
    }

    /// Passes on a part, which a worker has sent for an attempt that it runs. Costs nothing for each watcher but its wake-up.
    pub(crate) fn publish(&self, namespace: &Namespace, id: TaskId, mut delta: v1::MessageDelta) {
        // Redaction takes its time, and all tasks share the lock.
        let parts = self.topics.lock().get(&(namespace.clone(), id)).map(|topic| topic.parts.clone());
        let Some(parts) = parts.filter(|_| delta.text.len() <= MAX_PART_BYTES) else { return };
        rota_telemetry::redact::text(&mut delta.text);
        let mut part = Vec::new();
        let deltas = vec![delta];
        framing::append(&mut part, &v1::WatchTaskResponse { deltas, ..v1::WatchTaskResponse::default() });
        let _ = parts.send(part.into());
    }

    fn unfollow(&self, key: &Key) {
        let mut topics = self.topics.lock();
        let Some(topic) = topics.get_mut(key) else { return };
        topic.watchers -= 1;
        if topic.watchers > 0 {
            return;
        }
        let asked = topics.remove(key).and_then(|topic| topic.asked);
        if let Some((worker, fence)) = asked
            && let Some(session) = self.scheduler.inspect(&worker, |entry| entry.session.clone()).flatten()
        {
            session.send(follow(key.1, fence, false));
        }
    }
}

fn follow(id: TaskId, fence: Fence, followed: bool) -> Kind {
    Kind::Follow(Follow { task_id: id.to_string(), fence: num::to_i64(fence.0), followed })
}

/// A watcher of the messages of a task.
#[derive(Debug)]
pub(crate) struct Follower {
    deltas: Arc<Deltas>,
    parts: broadcast::Receiver<Bytes>,
    key: Key,
}

impl Follower {
    /// Asks the worker that has the task, if one has it. Others are asked when they accept it.
    pub(crate) fn begin(&self, task: &Task) {
        let session = self.deltas.scheduler.session_of(task);
        if let (State::Running | State::InputRequired, Some(session), Some(assignment)) =
            (task.state, session, &task.assignment)
        {
            let worker = (task.namespace.clone(), assignment.worker.clone());
            self.deltas.ask(&worker, task.id, task.fence, &session);
        }
    }

    /// Drops what has arrived: the log that was read meanwhile has the messages.
    pub(crate) fn skip(&mut self) {
        while !matches!(self.parts.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
    }

    /// Waits for the next part. Parts that were too many are left out.
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            match self.parts.recv().await {
                Ok(part) => return part,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.deltas.unfollow(&self.key);
    }
}
