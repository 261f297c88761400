//! What all attempts of a worker share, and the probe of the CLI among it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rota_proto::v1::event;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::attempt::AttemptEvent;
use super::confinement::Confinement;
use super::declared::Token;
use super::fetching::Fetching;
use super::handle::AttemptHandle;
use super::private_modes::PrivateModes;
use super::readiness::Readiness;
use crate::artifacts::Caller;
use crate::runtimes::claude::Installed;
use crate::workspace::Root;

/// Dependencies shared by all attempts of a worker.
pub(super) struct AttemptDeps {
    pub(super) readiness: Arc<Readiness>,
    pub(super) caller: Caller,
    /// Time for which attempts are kept without a control plane.
    pub(super) keep_for: Duration,
    /// Time for which an attempt delivers to hosts that do not respond.
    pub(super) delivery_timeout: Duration,
    /// Time for which an attempt stores its files, or fetches some from a storage that is away, with its slot.
    pub(super) storing_timeout: Duration,
    /// Whether the state directory is lost with the worker's process.
    pub(super) temporary_state: bool,
    /// Attempts that may store without a slot.
    pub(super) storing: Arc<Semaphore>,
    /// Whether there is a session.
    pub(super) connected: watch::Sender<bool>,
    /// Cancelled when the worker ends: what such attempts have left is for the next process.
    pub(super) ends: CancellationToken,
    /// Time between checkpoints; zero for none.
    pub(super) checkpoint_interval: Duration,
    /// Whether attempts that succeed leave no checkpoint.
    pub(super) discard_conversations: bool,
    pub(super) root: Root,
    pub(super) claude_program: Option<PathBuf>,
    pub(super) claude: Installed,
    pub(super) secrets_dir: Option<PathBuf>,
    /// Absent if attempts are not confined.
    pub(super) confinement: Option<Confinement>,
    /// Of what no other user may open.
    pub(super) private: PrivateModes,
    pub(super) token: Token,
    pub(super) events: mpsc::UnboundedSender<AttemptEvent>,
}

impl AttemptDeps {
    /// Returns how an attempt fetches files.
    pub(super) fn fetching<'a>(
        &'a self,
        handle: &'a AttemptHandle,
        events: &'a mpsc::Sender<event::Kind>,
    ) -> Fetching<'a> {
        Fetching { caller: &self.caller, handle, events, patience: self.storing_timeout }
    }
}

/// Tries out what is used of the CLI, if there is one, while the worker takes its first tasks, and again when an attempt finds
/// that it was replaced.
pub(super) fn probe_claude(deps: &Arc<AttemptDeps>) {
    let mut changes = deps.claude.changes();
    let deps = Arc::downgrade(deps);
    spawn("claude-probe", OnExit::Done, async move {
        while let Some(deps) = deps.upgrade() {
            deps.readiness.set_runtime_version(&deps.claude.version().await);
            changes.mark_unchanged();
            let missing = deps.claude.missing(deps.root.state()).await;
            deps.readiness.set_runtime_missing(missing);
            drop(deps);
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}
