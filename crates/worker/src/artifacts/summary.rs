//! The notice about the files that are kept of an attempt.

use rota_proto::v1::{ArtifactList, Severity, event};

use crate::report::notice;

/// Returns the notice of what was stored, and of what was not; `None` if there is neither.
pub(super) fn summary(list: &ArtifactList) -> Option<event::Kind> {
    if list.artifacts.is_empty() && list.skipped.is_empty() {
        return None;
    }
    let count = list.artifacts.len();
    let bytes: i64 = list.artifacts.iter().map(|artifact| artifact.size).sum();
    let mut text = format!("stored {count} {}, {bytes} bytes", if count == 1 { "file" } else { "files" });
    let severity = match list.skipped.first() {
        None => Severity::Low,
        Some(first) => {
            let others = list.skipped.len();
            text = format!("{text}; not {others}, such as {}: {}", first.name, first.reason);
            Severity::Medium
        }
    };
    Some(notice(severity, "artifacts_stored", text))
}
