//! Creations that were checked, and what is kept until they are committed and answered. `create` makes them.

use std::sync::Arc;

use rota_artifacts::Pin;
use rota_core::TaskId;
use rota_proto::v1;
use rota_store::{Command, Create, Work};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::scheduler::Reservation;
use crate::wire::kind::Asked;

/// A creation that is ready for the store.
pub(crate) struct Prepared {
    pub(crate) command: Box<Create>,
    pub(super) rest: Rest,
}

/// What the answer to a creation is made from.
pub(super) struct Rest {
    pub(super) reservation: Option<Reservation>,
    pub(super) payload: Box<v1::TaskSpec>,
    pub(super) alias: String,
    /// What the caller has set of the fields that its kind presets.
    pub(super) asked: Option<Box<Asked>>,
    /// Keeps the artifacts of the input until the commit, and those of work that is to be delivered.
    pub(super) inputs: Vec<Arc<Pin>>,
    /// Lets a rotation of keys wait for the commit of the sealed secrets.
    pub(super) uncommitted: Option<TaskTrackerToken>,
}

impl Prepared {
    /// Returns the id of the task.
    pub(crate) fn id(&self) -> TaskId {
        self.command.task.id
    }

    /// Has no other task with this key of the control plane created.
    pub(crate) fn once(mut self, key: String) -> Self {
        self.command.key = Some(key);
        self
    }

    /// Has the task deliver work of another one. The pin keeps it until the commit.
    pub(crate) fn deliver(&mut self, work: Work, pin: Pin) {
        self.command.given.work = Some(work);
        self.rest.inputs.push(Arc::new(pin));
    }
}

impl Rest {
    pub(super) fn keeps_nothing(&self) -> bool {
        self.reservation.is_none() && self.inputs.is_empty() && self.uncommitted.is_none()
    }
}

/// Takes commands and what is needed for their answers apart.
pub(super) fn split(prepared: Vec<Prepared>) -> (Vec<Command>, Vec<Rest>) {
    prepared.into_iter().map(|one| (Command::Create(one.command), one.rest)).unzip()
}
