//! Retries of deliveries: a copy of a task whose work is done and kept, and could not be delivered, only delivers it.

use prost::Message;
use rota_artifacts::Pin;
use rota_core::TaskId;
use rota_core::failure::Class;
use rota_core::task::{State, Task};
use rota_proto::names::branch;
use rota_proto::reasons;
use rota_store::Work;
use tonic::Status;

use crate::artifacts;
use crate::creation::Creator;
use crate::wire::status::{self, hinted};

impl Creator {
    /// Returns the work of a task that its copy with this id delivers; `None` if there is none, and the copy does the work again.
    pub(super) async fn undelivered(&self, old: &Task, id: TaskId) -> Result<Option<(Work, Pin)>, Status> {
        let failed = old.failure.as_ref().is_some_and(|failure| failure.class == Class::Delivery);
        let attempt = old.undelivered.map_or(old.attempt(), |left| left.attempt);
        if old.state != State::Failed || !(failed || old.delivers()) || attempt == 0 {
            return Ok(None);
        }
        let Some(mut list) = artifacts::of_attempt(&self.store, old, attempt).await? else { return Ok(None) };
        let Some(changes) = list.changes.as_mut().filter(|changes| !changes.bundle.is_empty()) else {
            return Ok(None);
        };
        // The branch of the copy, unless both have that of a task which they continue.
        if changes.branch == branch(old.id) {
            changes.branch = branch(id);
            changes.pushed = false;
        }
        let parts = artifacts::digests(&list.artifacts);
        let (missing, pin) = self.artifacts.missing(&old.namespace, &parts).await?;
        if let Some(part) = missing.first() {
            let text =
                format!("the work of task {} cannot be delivered: part {part} of it is not stored", old.id);
            return Err(hinted(
                reasons::ARTIFACT_NOT_STORED,
                text,
                "do the work again with `rota retry --from-scratch`",
            ));
        }
        // Not as the result of the task, which has none.
        let result = match old.delivers() {
            true => self.store.reads().result(old.key).await.map_err(status::store)?,
            false => None,
        };
        Ok(Some((Work { list: list.encode_to_vec().into(), result }, pin)))
    }
}
