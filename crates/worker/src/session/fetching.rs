//! Files that an attempt needs before its programs start: while the storage is away, it holds its slot only for a while.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_proto::causes;
use rota_proto::v1::{Failure, Severity, event};
use tokio::sync::mpsc;

use super::handle::AttemptHandle;
use crate::artifacts::{Caller, Given};
use crate::report::notice;
use crate::runtimes::RunOutcome;
use crate::supervise::stopped;

/// How an attempt fetches files.
#[derive(Clone, Copy)]
pub(super) struct Fetching<'a> {
    pub(super) caller: &'a Caller,
    pub(super) handle: &'a AttemptHandle,
    pub(super) events: &'a mpsc::Sender<event::Kind>,
    /// Time for which a storage that is away is waited for.
    pub(super) patience: Duration,
}

impl Fetching<'_> {
    /// Downloads files into a folder, until a request to stop.
    pub(super) async fn fetch(&self, given: Given, namespace: &str, to: &Path) -> Result<(), RunOutcome> {
        let noted = AtomicBool::new(false);
        let waits = |failed: Option<Failure>| {
            if let Some(failed) = &failed
                && !noted.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(error = failed.message, "waiting for the storage of artifacts");
                let text = format!("waiting for the storage of artifacts: {}", failed.message);
                // A full channel has events that show as well that the attempt is alive.
                let _ = self.events.try_send(notice(Severity::Medium, causes::ARTIFACTS_UNAVAILABLE, text));
            }
            self.handle.lock().obstacle = failed;
        };
        let mut stop = self.handle.stop_signal();
        tokio::select! {
            fetched = given.fetch(self.caller, namespace, to, self.patience, &waits) => fetched,
            _ = stopped(&mut stop) => Err(RunOutcome::Stopped { by: "interrupt" }),
        }
    }
}
