//! Rotation of the key of sealed secrets, in pieces: call after call, the secrets of tasks and schedules are sealed under the next
//! key. What is sealed under it already is left alone, so that a rotation that was interrupted begins again from the start.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rota_core::{TaskId, TaskKey};
use rota_proto::{num, v1};
use rota_store::{Command, DocumentKey, DocumentKind, Expected, PutDocument, Reply, Reseal};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use crate::schedules::{Entry, Registry};
use crate::seal::{Sealer, StoredKeys, key_document};
use crate::store_client::StoreClient;
use crate::wire::status::{error, hinted, refused, store};

/// Time and pieces after which a call returns, to be made again.
const CALL_TIME: Duration = Duration::from_secs(2);
const CALL_PIECES: usize = 16;
/// Tasks whose secrets one transaction replaces.
const PIECE: usize = 64;
/// Time for the commits of what was sealed before the rotation.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How far a rotation has come: after all tasks, the schedules follow.
#[derive(Debug, Default)]
struct Progress {
    after: TaskKey,
    resealed: usize,
    unreadable: usize,
}

pub(crate) struct Rotation {
    pub(crate) store: StoreClient,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) schedules: Arc<Registry>,
    progress: Mutex<Option<Progress>>,
}

impl Rotation {
    pub(crate) fn new(store: StoreClient, sealer: Arc<Sealer>, schedules: Arc<Registry>) -> Self {
        Self { store, sealer, schedules, progress: Mutex::default() }
    }

    /// Seals under the next key from now on, and seals some of the secrets in the store under it.
    pub(super) async fn rotate(&self) -> Result<v1::RotateKeyResponse, Status> {
        let mut turn = self.progress.lock().await;
        let keys = self.begin(&mut turn).await?;
        let progress = turn.get_or_insert_default();
        let began = Instant::now();
        let (mut more, mut pieces) = (true, 0);
        while more && pieces < CALL_PIECES && began.elapsed() < CALL_TIME {
            more = self.reseal_tasks(progress).await?;
            pieces += 1;
        }
        if !more {
            self.reseal_schedules(progress).await?;
            self.end(&keys).await?;
        }
        let answer = v1::RotateKeyResponse {
            key_id: keys.current_id(),
            previous_key_id: keys.previous_id(),
            resealed: num::to_i64(std::mem::take(&mut progress.resealed) as u64),
            unreadable: num::to_i64(std::mem::take(&mut progress.unreadable) as u64),
            more,
        };
        if !more {
            *turn = None;
        }
        Ok(answer)
    }

    /// Stores which key is the current one, before anything is sealed under it.
    async fn begin(&self, progress: &mut Option<Progress>) -> Result<StoredKeys, Status> {
        let document = self.store.reads().document(key_document()).await.map_err(store)?;
        let document = document.ok_or_else(|| Status::data_loss("the store names no key"))?;
        let stored = StoredKeys::decode_document(&document);
        let stored = stored.map_err(|error| Status::data_loss(error.to_string()))?;
        let Some(keys) = self.sealer.target(&stored) else {
            return Err(hinted(
                "NO_NEXT_KEY",
                format!("this control plane has only the key {}", stored.current_id()),
                "start all replicas with --next-key-file and another key, then repeat the call",
            ));
        };
        if stored.current != keys.current {
            let replies = self.store.apply(vec![keys.put(document.expected())]).await.map_err(store)?;
            replies.into_iter().next().transpose().map_err(refused)?;
            tracing::info!(
                key = keys.current_id(),
                previous = keys.previous_id(),
                "the key of secrets is rotated"
            );
            *progress = None;
        }
        self.sealer.switch(&keys);
        if !self.sealer.committed(COMMIT_TIMEOUT).await {
            return Err(Status::unavailable("tasks with secrets are still being created; repeat the call"));
        }
        Ok(keys)
    }

    /// Stores that nothing is sealed under the previous key any more.
    async fn end(&self, keys: &StoredKeys) -> Result<(), Status> {
        let ended = StoredKeys { current: keys.current.clone(), previous: Vec::new() };
        let replies = self.store.apply(vec![ended.put(Expected::Any)]).await.map_err(store)?;
        replies.into_iter().next().transpose().map_err(refused)?;
        tracing::info!(key = keys.current_id(), "all secrets are sealed under the next key");
        Ok(())
    }

    /// Returns whether there may be more tasks.
    async fn reseal_tasks(&self, progress: &mut Progress) -> Result<bool, Status> {
        let found = self.store.reads().secrets(progress.after, PIECE).await.map_err(store)?;
        let Some(last) = found.last().map(|one| one.key) else { return Ok(false) };
        let mut outdated = Vec::new();
        for one in found {
            let (namespace, id) = &one.id;
            match self.sealer.reseal(namespace, *id, &one.sealed) {
                Ok(Some(after)) => {
                    outdated.push(Reseal { key: one.key, before: one.sealed, after: after.bytes })
                }
                Ok(None) => {}
                Err(_) => {
                    tracing::warn!(task = %id, %namespace, "no key opens the secrets of the task");
                    progress.unreadable += 1;
                }
            }
        }
        if !outdated.is_empty() {
            let replies = self.store.apply(vec![Command::Reseal(outdated)]).await.map_err(store)?;
            for reply in replies {
                if let Reply::Resealed(count) = reply.map_err(refused)? {
                    progress.resealed += count;
                }
            }
        }
        progress.after = last;
        Ok(true)
    }

    async fn reseal_schedules(&self, progress: &mut Progress) -> Result<(), Status> {
        // One that is being created was sealed before, and is not listed yet.
        self.schedules.changes.ended().await;
        for entry in self.schedules.list(None) {
            // What is being changed was sealed before.
            let _exclusive = self.schedules.changes.lock(entry.namespace()).await;
            let Some(entry) = self.schedules.get(&entry.key()) else { continue };
            if entry.stored.sealed.is_empty() {
                continue;
            }
            let sealed_for = TaskId(Uuid::from_slice(&entry.stored.sealed_for).unwrap_or_default());
            match self.sealer.reseal(entry.namespace(), sealed_for, &entry.stored.sealed) {
                Ok(Some(sealed)) => {
                    self.put(&entry, sealed.bytes.to_vec()).await?;
                    progress.resealed += 1;
                }
                Ok(None) => {}
                Err(_) => {
                    tracing::warn!(schedule = entry.name(), "no key opens the secrets of the schedule");
                    progress.unreadable += 1;
                }
            }
        }
        Ok(())
    }

    async fn put(&self, entry: &Entry, sealed: Vec<u8>) -> Result<(), Status> {
        let mut stored = entry.stored.clone();
        stored.sealed = sealed;
        let key = DocumentKey {
            kind: DocumentKind::Schedule,
            namespace: entry.namespace().clone(),
            name: entry.name().to_owned(),
        };
        let payload = stored.encode_to_vec().into();
        let put = PutDocument { key, payload, expected: entry.document.expected() };
        let replies = self.store.apply(vec![Command::PutDocument(put)]).await.map_err(store)?;
        match replies.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            // Deleted or changed meanwhile, by a call that did not wait: the rotation is to be repeated.
            _ => Err(error("CONCURRENT_CHANGE", "a schedule was changed meanwhile; repeat the call")),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use rota_core::{Namespace, Timestamp};
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use rota_store::{Document, DocumentChange};

    use super::*;
    use crate::clock::now;
    use crate::schedules::StoredSchedule;
    use crate::seal;

    /// Its secrets were sealed under the previous key, and it is listed once its call has ended.
    #[tokio::test]
    async fn schedules_being_created_are_included() {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(now)).unwrap();
        let store = StoreClient::new(Arc::new(store), Arc::new(now), Counter::default());
        let folder = tempfile::tempdir().unwrap();
        let sealer = Arc::new(seal::of_file(&folder.path().join("key")));
        let schedules = Arc::new(Registry::default());
        let rotation = Rotation::new(store, sealer, Arc::clone(&schedules));

        let creating = schedules.changes.lock(&Namespace::default()).await;
        let mut progress = Progress::default();
        let mut resealing = Box::pin(rotation.reseal_schedules(&mut progress));
        assert!(futures::poll!(&mut resealing).is_pending(), "it waits for the call");
        let key = DocumentKey {
            kind: DocumentKind::Schedule,
            namespace: Namespace::default(),
            name: "new".to_owned(),
        };
        let stored = StoredSchedule { sealed: vec![1], ..StoredSchedule::default() };
        let document = Document {
            key,
            uid: Uuid::nil(),
            version: 1,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            payload: stored.encode_to_vec().into(),
        };
        schedules.apply(&DocumentChange { document: Arc::new(document), deleted: false });
        drop(creating);
        resealing.await.unwrap();
        assert_eq!(progress.unreadable, 1);
    }
}
