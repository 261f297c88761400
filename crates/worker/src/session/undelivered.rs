//! An attempt that only delivers what an earlier one has done. Its programs do not start.

use rota_proto::v1::{FailureClass, WorkspaceCleanup, WorkspaceMode};
use rota_proto::worker::v1::Assign;

use super::earlier;
use super::handle::AttemptHandle;
use crate::artifacts::Caller;
use crate::report::failure;
use crate::runtimes::{RunOutcome, RunReport};
use crate::workspace::AttemptDirs;

/// Whether an attempt only delivers.
pub(super) fn delivers(assign: &Assign) -> bool {
    assign.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.deliver)
}

/// Gives an attempt that only delivers an empty workspace of its own. It needs none: what it pushes is kept, and the host may have
/// lost since where the task has started.
pub(super) fn without_workspace(assign: &mut Assign) {
    if let Some(workspace) = assign.spec.as_mut().and_then(|spec| spec.workspace.as_mut()) {
        workspace.set_mode(WorkspaceMode::Fresh);
        workspace.set_cleanup(WorkspaceCleanup::Always);
    }
}

/// Finds the work that is to be delivered. Returns the report of the attempt that has done it, without its usage.
pub(super) async fn find(
    caller: &Caller,
    handle: &AttemptHandle,
    assign: &Assign,
    dirs: &mut AttemptDirs,
) -> RunReport {
    let what = "failed to ask what an earlier attempt has left to deliver";
    let left = match earlier::take(caller, handle, assign, what).await {
        Ok(left) => left.undelivered,
        Err(ended) => return RunReport::new(ended),
    };
    let Some(left) = left else {
        let text = "the control plane has nothing to deliver";
        return RunReport::new(RunOutcome::Failed(failure(FailureClass::Delivery, text)));
    };
    let result = left.result.clone().unwrap_or_default();
    dirs.undelivered = Some(Box::new(left));
    // From now on there is something to keep.
    dirs.started = true;
    RunReport::new(RunOutcome::Succeeded(result))
}
