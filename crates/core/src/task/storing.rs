//! Attempts whose work has ended and whose files cannot be stored yet: they have released their slot, and their worker keeps the
//! files on its disk until the storage takes them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Desired, Task};
use crate::Timestamp;

/// Time after which the disk of a worker that is to store files counts as lost.
pub const MAX_STORING_TIME: Duration = Duration::from_hours(7 * 24);

/// Files that an attempt without a slot has still to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storing {
    pub since: Timestamp,
    /// Whether the disk that has them outlives the worker's process.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub outlives_worker: bool,
}

impl Task {
    /// Notes that the work of the attempt has ended, and whether it holds a slot no longer. A stop ends work: what was left is stored and
    /// delivered in its own time.
    pub(super) fn end_work(&mut self, storing: Option<Storing>) {
        let Some(assignment) = &mut self.assignment else { return };
        assignment.work_ended = true;
        assignment.storing = assignment.storing.or(storing);
        if self.desired != Desired::Cancelled {
            self.confirm_by = None;
        }
    }

    /// Returns what the attempt of the task has still to store without a slot.
    pub fn storing(&self) -> Option<Storing> {
        self.assignment.as_ref()?.storing
    }

    /// Whether its worker may be away for long: what the attempt has left is on its disk.
    pub fn waits_for_its_worker(&self) -> bool {
        self.desired != Desired::Cancelled && self.storing().is_some_and(|storing| storing.outlives_worker)
    }
}
