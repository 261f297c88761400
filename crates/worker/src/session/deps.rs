//! What all attempts of a worker share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::attempt::AttemptEvent;
use super::confinement::Confinement;
use super::declared::Token;
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
    pub(super) token: Token,
    pub(super) events: mpsc::UnboundedSender<AttemptEvent>,
}
