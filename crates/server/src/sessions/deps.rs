//! What a worker's session needs of the control plane.

use std::sync::Arc;

use rota_core::task::WorkerRef;
use rota_core::{Fence, TaskId};
use tokio_util::sync::CancellationToken;

use super::heartbeats::Heartbeats;
use super::hello_rate::HelloRate;
use crate::agents::AgentRegistry;
use crate::artifacts::Artifacts;
use crate::breakers::Breakers;
use crate::clock::now;
use crate::dispatcher::Dispatcher;
use crate::keys::WorkerKey;
use crate::lost_history::LostHistory;
use crate::metrics::Metrics;
use crate::options::Timing;
use crate::scheduler::Scheduler;
use crate::store_client::StoreClient;
use crate::trust::worker_token::WorkerTokens;
use crate::watchers::Deltas;

/// Handles that every session uses.
#[derive(Clone)]
pub(crate) struct SessionDeps {
    pub(crate) store: StoreClient,
    pub(crate) artifacts: Artifacts,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) deltas: Arc<Deltas>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hellos: Arc<HelloRate>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) worker_tokens: WorkerTokens,
    pub(crate) timing: Timing,
    pub(crate) replica: String,
    pub(crate) lost_history: Arc<LostHistory>,
    pub(crate) stop: CancellationToken,
}

impl SessionDeps {
    /// Marks an attempt as finishing, so that the commit of its end does not cancel it.
    pub(super) fn finishing(&self, opened: &Opened, id: TaskId, fence: Fence) {
        self.scheduler.finish_attempt(&opened.key, &opened.worker, id, fence);
    }

    /// Frees the slot of an attempt that has ended.
    pub(super) fn free(&self, opened: &Opened, id: TaskId, fence: Fence) {
        self.scheduler.release_attempt(&opened.key, &opened.worker, id, fence, now());
    }
}

/// A session that is up.
pub(super) struct Opened {
    pub(super) key: WorkerKey,
    pub(super) worker: WorkerRef,
    pub(super) instance: String,
}
