//! Care for the store: removal of old records, the search index, and backups.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rota_proto::{num, v1};
use rota_store::{Command, Prune, Reply};
use rota_telemetry::clock::unix_micros;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::streams::{Outbox, Streams, send_in_time};
use crate::clock::now;
use crate::store_client::{StoreClient, no_reply};
use crate::wire::names::{self, TaskName};
use crate::wire::status::{error, invalid, refused, store};
use crate::wire::time;

/// Time after which a removal returns, to be called again.
const PRUNE_TIME: Duration = Duration::from_secs(2);
/// Records that one transaction removes.
const MAX_PRUNED: usize = 200;
/// Size of one part of a backup, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// Parts that wait for the caller to read them.
const CHUNKS: usize = 2;

pub(crate) struct Storage {
    pub(crate) store: StoreClient,
    pub(crate) streams: Streams,
    /// Held during a backup: each needs as much space as the store.
    pub(crate) backup: Arc<Mutex<()>>,
    /// Unix time at which the last one was sent to its end.
    pub(crate) last_backup: Gauge,
}

impl Storage {
    pub(super) async fn prune(&self, request: v1::PruneRequest) -> Result<v1::PruneResponse, Status> {
        if !request.task.is_empty() {
            return self.remove(&request).await;
        }
        let age = request.older_than.ok_or_else(|| invalid("older_than", "is required"))?;
        let age = Duration::try_from(age).map_err(|_| invalid("older_than", "must not be negative"))?;
        let ended_before = Some(self.store.now() - age);
        // Sessions stay as long as always: their epochs fence what workers may still send.
        let left_before = rota_core::Timestamp(0);
        let began = Instant::now();
        let mut removed = 0;
        loop {
            let prune = Prune { ended_before, left_before, limit: MAX_PRUNED };
            let (count, more) = self.store.prune(prune).await?;
            removed += count;
            if !more || began.elapsed() >= PRUNE_TIME {
                tracing::info!(removed, ?age, "removed old records");
                return Ok(v1::PruneResponse { removed: num::to_i64(removed), more });
            }
        }
    }

    pub(super) async fn database(&self) -> Result<v1::DatabaseStatus, Status> {
        let found = self.store.reads().database_status().await.map_err(store)?;
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let database = found.map(|found| v1::DatabaseStatus {
            version: found.version,
            migration: count(found.migration),
            fsync: found.fsync,
            full_page_writes: found.full_page_writes,
            synchronous_commit: found.synchronous_commit,
            synchronous_standbys: count(found.standbys.synchronous),
            asynchronous_standbys: count(found.standbys.asynchronous),
            unknown_standbys: count(found.standbys.unknown),
            size_bytes: num::to_i64(found.size_bytes),
            connections: count(found.connections),
            max_connections: count(found.max_connections),
            commit_latency: Some(time::duration(found.commit_latency)),
            database_time: Some(time::timestamp(found.now)),
            server_time: Some(time::timestamp(now())),
            epoch: num::to_i64(found.epoch),
            revision: num::to_i64(found.revision),
        });
        Ok(database.unwrap_or_default())
    }

    async fn remove(&self, request: &v1::PruneRequest) -> Result<v1::PruneResponse, Status> {
        if request.older_than.is_some() {
            return Err(invalid("older_than", "cannot be given with a task"));
        }
        // The name of a task whose record cannot be decoded leads nowhere.
        let (namespace, TaskName::Id(id)) = names::task("task", &request.task)? else {
            return Err(invalid("task", "must be named by its id"));
        };
        let replies = self.store.apply(vec![Command::RemoveTask((namespace, id))]).await.map_err(store)?;
        match replies.into_iter().next().ok_or_else(no_reply)?.map_err(refused)? {
            Reply::Pruned { count: 1, .. } => {
                self.store.index().removed();
                tracing::info!(task = %id, "removed a task");
                Ok(v1::PruneResponse { removed: 1, more: false })
            }
            _ => {
                let why =
                    "has not ended, another task needs it, or it is of a workflow, with which it is removed";
                Err(error("TASK_NOT_ENDED", format!("task {id} {why}")))
            }
        }
    }

    /// Has the search index built again by its background task.
    pub(super) async fn rebuild_index(&self) -> Result<v1::RebuildSearchIndexResponse, Status> {
        let revision = self.store.reads().revision().await.map_err(store)?;
        self.store.index().rebuild();
        tracing::info!(revision, "the search index is built again, as requested");
        Ok(v1::RebuildSearchIndexResponse { revision: num::to_i64(revision) })
    }

    pub(super) fn backup(&self) -> Result<ReceiverStream<Result<v1::BackupResponse, Status>>, Status> {
        let Ok(turn) = Arc::clone(&self.backup).try_lock_owned() else {
            return Err(error("LIMIT_REACHED", "another backup is being made; wait for its end"));
        };
        let (client, last) = (self.store.clone(), self.last_backup.clone());
        Ok(self.streams.serve("backup", CHUNKS, |outbox| async move {
            let _turn = turn;
            let copy = client.reads().backup().await.map_err(store)?;
            transfer(copy, &outbox).await?;
            last.set(unix_micros() / 1_000_000);
            Ok(())
        }))
    }
}

async fn transfer(mut copy: File, outbox: &Outbox<v1::BackupResponse>) -> Result<(), Status> {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            let read = copy.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data);
            read.map(|_| (copy, data))
        });
        let read = read.await.map_err(|_| Status::internal("the reader of the backup has failed"))?;
        let (rest, data) = read.map_err(|error| Status::data_loss(error.to_string()))?;
        if data.is_empty() {
            return Ok(());
        }
        // The copy takes the space of the store.
        send_in_time(outbox, v1::BackupResponse { data }).await?;
        copy = rest;
    }
}
