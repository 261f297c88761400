//! What is kept for a step of a workflow until its commit. Knows nothing of what is committed.

use std::sync::Arc;

use rota_artifacts::Pin;
use rota_core::TaskId;
use rota_core::task::Task;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::scheduler::Reservation;

/// Slot of a task that the commit creates, and artifacts that it refers to.
pub(crate) struct Kept {
    task: Option<(TaskId, Reservation)>,
    _artifacts: Option<Arc<Pin>>,
    _uncommitted: Option<TaskTrackerToken>,
}

impl Kept {
    pub(super) fn of(
        task: TaskId,
        reservation: Option<Reservation>,
        inputs: Option<Arc<Pin>>,
        uncommitted: Option<TaskTrackerToken>,
    ) -> Self {
        let task = reservation.map(|reservation| (task, reservation));
        Self { task, _artifacts: inputs, _uncommitted: uncommitted }
    }

    /// Of a step that creates no task, but takes over the files of others.
    pub(crate) fn files(pin: Arc<Pin>) -> Self {
        Self { task: None, _artifacts: Some(pin), _uncommitted: None }
    }

    /// Hands the slot over if the commit has assigned the task. `offered` are the created tasks that were offered.
    pub(crate) fn commit(self, offered: &[Arc<Task>]) {
        if let Some((id, reservation)) = self.task {
            let created = offered.iter().find(|task| task.id == id);
            reservation.commit_created(created.map(Arc::as_ref));
        }
    }
}
