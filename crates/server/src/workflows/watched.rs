//! Watchers of single workflows: what a commit has changed is read and encoded once for all that watch a workflow, at most once per
//! [`INTERVAL`]. An approval also changes the steps around its workflow. A watcher that is too slow reads everything again. Knows no streams.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::{Step, Workflow};
use rota_proto::framing::append;
use rota_proto::v1;
use rota_store::{Commit, WorkflowQuery, WorkflowRows};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::ready::RETRY_DELAY;
use crate::store_client::StoreClient;
use crate::watchers::MAX_CHUNK_BYTES;
use crate::wire::{status, workflow as wire};

/// Least time between two readings of a workflow. Changes of one step within it become one message.
const INTERVAL: Duration = Duration::from_millis(50);
/// Chunks that a watcher may be behind.
const BEHIND: usize = 16;
/// Steps of one read of the store.
const PAGE: usize = 100;

/// Encoded messages of a workflow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunk {
    pub(crate) with_steps: Bytes,
    pub(crate) without: Bytes,
    pub(crate) is_last: bool,
}

#[derive(Debug)]
struct OfWorkflow {
    chunks: broadcast::Sender<Chunk>,
    /// Steps that have changed since the last reading, if the workflow has.
    changed: Option<BTreeSet<u32>>,
}

#[derive(Debug, Default)]
pub(crate) struct Watched {
    workflows: Mutex<HashMap<WorkflowKey, OfWorkflow>>,
    /// Workflows of approvals that have changed: those around them are what watchers wait for, too.
    asked: Mutex<BTreeSet<WorkflowKey>>,
    wake: Notify,
}

/// Place of a watcher, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    watched: Arc<Watched>,
    key: WorkflowKey,
    chunks: Option<broadcast::Receiver<Chunk>>,
}

impl Watch {
    /// Waits for the next chunk. None if everything must be read again.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        let chunks = self.chunks.as_mut()?;
        match chunks.recv().await {
            Ok(chunk) => Some(chunk),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => Some(Chunk { is_last: true, ..Chunk::default() }),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut workflows = self.watched.workflows.lock();
        self.chunks = None;
        if workflows.get(&self.key).is_some_and(|of| of.chunks.receiver_count() == 0) {
            workflows.remove(&self.key);
        }
    }
}

impl Watched {
    /// Returns the chunks of a workflow from now on.
    pub(crate) fn watch(self: &Arc<Self>, key: WorkflowKey) -> Watch {
        let mut workflows = self.workflows.lock();
        let new = || OfWorkflow { chunks: broadcast::channel(BEHIND).0, changed: None };
        let chunks = Some(workflows.entry(key).or_insert_with(new).chunks.subscribe());
        Watch { watched: Arc::clone(self), key, chunks }
    }

    /// Takes in a commit. Never waits.
    pub(super) fn observe(&self, commit: &Commit) {
        let mut workflows = self.workflows.lock();
        if workflows.is_empty() {
            return;
        }
        let whole = commit.workflows.iter().map(|workflow| (workflow.key, None));
        let steps = commit.steps.iter().map(|step| (step.workflow, Some(step.index)));
        for (key, step) in whole.chain(steps) {
            if let Some(of) = workflows.get_mut(&key) {
                of.changed.get_or_insert_default().extend(step);
                self.wake.notify_one();
            }
        }
        for step in commit.steps.iter().filter(|step| step.is_approval()) {
            self.asked.lock().insert(step.workflow);
            self.wake.notify_one();
        }
    }

    /// Marks the workflows around those of which approvals have changed, with their steps.
    async fn mark_around(&self, store: &StoreClient) -> Result<(), Status> {
        let asked = std::mem::take(&mut *self.asked.lock());
        let mut marked = Ok(());
        for key in asked {
            match self.mark_above(store, key).await {
                Err(error) if is_transient(&error) => {
                    self.asked.lock().insert(key);
                    marked = Err(error);
                }
                // None around a damaged one can be found.
                Ok(()) | Err(_) => {}
            }
        }
        marked
    }

    async fn mark_above(&self, store: &StoreClient, key: WorkflowKey) -> Result<(), Status> {
        let mut next = key;
        while let Some(workflow) = read(store, WorkflowQuery::Key(next)).await?.workflows.pop()
            && let Some(parent) = workflow.parent
        {
            next = parent.step.workflow;
            self.mark(next, BTreeSet::from([parent.step.step]));
        }
        Ok(())
    }

    fn take(&self) -> Vec<(WorkflowKey, BTreeSet<u32>)> {
        let mut workflows = self.workflows.lock();
        workflows.iter_mut().filter_map(|(key, of)| Some((*key, of.changed.take()?))).collect()
    }

    fn mark(&self, key: WorkflowKey, steps: BTreeSet<u32>) {
        if let Some(of) = self.workflows.lock().get_mut(&key) {
            of.changed.get_or_insert_default().extend(steps);
        }
    }

    /// Publishes a chunk. Without a watcher there is nothing to do.
    fn publish(&self, key: WorkflowKey, chunk: Chunk) {
        if let Some(of) = self.workflows.lock().get(&key) {
            let _ = of.chunks.send(chunk);
        }
    }

    async fn relay_one(
        &self,
        store: &StoreClient,
        key: WorkflowKey,
        changed: &BTreeSet<u32>,
    ) -> Result<(), Status> {
        let Some(workflow) = read(store, WorkflowQuery::Key(key)).await?.workflows.into_iter().next() else {
            self.publish(key, Chunk { is_last: true, ..Chunk::default() });
            return Ok(());
        };
        let (mut steps, mut size) = (Vec::new(), 0);
        let changed: Vec<_> = changed.iter().copied().collect();
        for page in changed.chunks(PAGE) {
            for record in read(store, WorkflowQuery::StepsAt(key, page.to_vec())).await?.steps {
                let step = wire::step(&workflow, &record);
                size += step.encoded_len();
                steps.push(step);
                if size > MAX_CHUNK_BYTES {
                    let with_steps = encode(&[message(&workflow, std::mem::take(&mut steps))]);
                    self.publish(key, Chunk { with_steps, ..Chunk::default() });
                    size = 0;
                }
            }
        }
        let last = end(store, &workflow).await?;
        let is_last = last.is_some();
        let messages = |steps: Vec<_>| {
            let changed = (last.is_none() || !steps.is_empty()).then(|| message(&workflow, steps));
            encode(&changed.into_iter().chain(last.clone()).collect::<Vec<_>>())
        };
        let chunk = Chunk { with_steps: messages(steps), without: messages(Vec::new()), is_last };
        self.publish(key, chunk);
        Ok(())
    }
}

/// Relays changes of workflows to their watchers, until `stop` is cancelled.
pub(crate) async fn relay(store: StoreClient, watched: Arc<Watched>, stop: CancellationToken) {
    let relay = async {
        loop {
            watched.wake.notified().await;
            let mut fails = false;
            if let Err(error) = watched.mark_around(&store).await {
                tracing::warn!(%error, "failed to read the workflows around an approval, retrying");
                fails = true;
            }
            for (key, steps) in watched.take() {
                if let Err(error) = watched.relay_one(&store, key, &steps).await {
                    let retries = is_transient(&error);
                    tracing::warn!(%error, retries, "failed to read a changed workflow");
                    if retries {
                        watched.mark(key, steps);
                        fails = true;
                    }
                }
            }
            if fails {
                tokio::time::sleep(RETRY_DELAY).await;
                watched.wake.notify_one();
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    stop.run_until_cancelled(relay).await;
}

/// Whether a read may succeed later: not if a record cannot be decoded.
fn is_transient(error: &Status) -> bool {
    error.code() != Code::DataLoss
}

async fn read(store: &StoreClient, query: WorkflowQuery) -> Result<WorkflowRows, Status> {
    store.reads().workflows(query).await.map_err(status::store)
}

fn message(workflow: &Workflow, steps: Vec<v1::StepStatus>) -> v1::WatchWorkflowResponse {
    v1::WatchWorkflowResponse { workflow: Some(wire::workflow(workflow, None, None)), steps }
}

/// Returns the last message about a workflow, if it has ended. It is the only one of an ended workflow without steps, by which
/// clients know it.
async fn end(store: &StoreClient, workflow: &Workflow) -> Result<Option<v1::WatchWorkflowResponse>, Status> {
    if !workflow.state.is_final() {
        return Ok(None);
    }
    let outputs = super::outputs(store, workflow.key).await?;
    let workflow = Some(wire::workflow(workflow, None, outputs));
    Ok(Some(v1::WatchWorkflowResponse { workflow, steps: Vec::new() }))
}

fn encode(messages: &[v1::WatchWorkflowResponse]) -> Bytes {
    let mut chunk = Vec::new();
    messages.iter().for_each(|message| append(&mut chunk, message));
    chunk.into()
}

/// Reads a page of a workflow for one watcher: its steps from an index on, and the index of the next page. A workflow that does not
/// exist has ended.
pub(crate) async fn page(
    store: &StoreClient,
    key: WorkflowKey,
    from: u32,
    without_steps: bool,
) -> Result<(Bytes, Option<u32>, bool), Status> {
    let Some(workflow) = read(store, WorkflowQuery::Key(key)).await?.workflows.into_iter().next() else {
        return Ok((Bytes::new(), None, true));
    };
    let mut steps: Vec<Step> = Vec::new();
    if !without_steps {
        steps = read(store, WorkflowQuery::Steps { workflow: key, from, limit: PAGE }).await?.steps;
    }
    if let Some(last) = steps.last() {
        let next = Some(last.index + 1);
        let steps = steps.iter().map(|record| wire::step(&workflow, record)).collect();
        return Ok((encode(&[message(&workflow, steps)]), next, false));
    }
    let last = end(store, &workflow).await?;
    let is_last = last.is_some();
    let first = (from == 0 && !is_last).then(|| message(&workflow, Vec::new()));
    Ok((encode(&first.into_iter().chain(last).collect::<Vec<_>>()), None, is_last))
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use rota_core::workflow::{Command, Kind};
    use rota_core::{Namespace, Timestamp, WorkflowId};
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use rota_store::{CreateWorkflow, NewStep, Reply, Store as _, WorkflowCommand};
    use uuid::Uuid;

    use super::*;
    use crate::watchers::messages::take;

    const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

    async fn next(watch: &mut Watch) -> Chunk {
        tokio::time::timeout(WAIT_TIMEOUT, watch.next()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn watchers_of_a_workflow_share_one_reading() {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(|| Timestamp(1))).unwrap();
        let mut commits = store.commits().unwrap();
        let store = StoreClient::new(Arc::new(store), Arc::new(|| Timestamp(1)), Counter::default());
        let step = |name: &str| NewStep::new(Step::new(name.to_owned(), Kind::Signal { timeout: None }));
        let workflow = Workflow::new(WorkflowId(Uuid::from_u128(1)), Namespace::new("n").unwrap());
        let create = CreateWorkflow::new(workflow, vec![step("a"), step("b")]);
        let replies = store.apply(vec![WorkflowCommand::Create(Box::new(create)).into()]).await.unwrap();
        let Some(Ok(Reply::Workflow { workflow, .. })) = replies.into_iter().next() else { panic!() };
        let watched = Arc::new(Watched::default());
        let commit = Commit {
            workflows: vec![Arc::clone(&workflow)],
            steps: vec![Arc::new(Step { workflow: workflow.key, index: 1, ..step("b").step })],
            ..Commit::default()
        };
        watched.observe(&commit);
        assert!(watched.take().is_empty(), "without a watcher");
        let mut watches: Vec<_> = (0..3).map(|_| watched.watch(workflow.key)).collect();
        for _ in 0..10 {
            watched.observe(&commit);
        }
        let stop = CancellationToken::new();
        let relay = relay(store.clone(), Arc::clone(&watched), stop.clone());
        let relaying = rota_telemetry::spawn("watched", rota_telemetry::OnExit::Done, relay);
        let first = next(&mut watches[0]).await;
        for watch in &mut watches[1..] {
            let chunk = next(watch).await;
            assert_eq!(chunk.with_steps.as_ptr(), first.with_steps.as_ptr(), "encoded once");
        }
        let steps_of = |messages: &Bytes| {
            let mut chunk = messages.clone();
            let messages = std::iter::from_fn(|| take::<v1::WatchWorkflowResponse>(&mut chunk).unwrap());
            messages
                .map(|message| message.steps.into_iter().map(|step| step.name).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        assert_eq!(steps_of(&first.with_steps), [["b"]]);
        assert!(!first.is_last);
        // Ten commits were one chunk: the next one is that of the next commit.
        let steps = Vec::new();
        let changed = Commit { workflows: vec![Arc::clone(&workflow)], steps, ..Commit::default() };
        watched.observe(&changed);
        let second = next(&mut watches[0]).await;
        assert_eq!(second.with_steps, second.without);
        // After its end, a message without steps is the last one.
        let command = Command::Cancel { reason: String::new() };
        let (namespace, id) = (workflow.namespace.clone(), workflow.id);
        store.apply(vec![WorkflowCommand::Apply { namespace, id, command }.into()]).await.unwrap();
        let ended = async {
            while !commits.recv().await.unwrap().workflows.iter().any(|workflow| workflow.state.is_final()) {}
        };
        tokio::time::timeout(WAIT_TIMEOUT, ended).await.unwrap();
        watched.observe(&changed);
        let last = next(&mut watches[0]).await;
        let nothing: [Vec<String>; 1] = [Vec::new()];
        assert_eq!((steps_of(&last.with_steps), last.is_last), (nothing.to_vec(), true));
        let (all, _, is_last) = page(&store, workflow.key, 0, true).await.unwrap();
        assert_eq!((steps_of(&all), is_last), (nothing.to_vec(), true));
        watches.clear();
        assert!(watched.workflows.lock().is_empty());
        stop.cancel();
        relaying.await.unwrap();
    }
}
