//! `UpdateTask`: the command for what a request changes, and for what its etag depends on.

use rota_core::rank::Priority;
use rota_core::task::{self, Desired, Task};
use rota_proto::v1;
use tonic::Status;

use crate::wire::status::invalid;
use crate::wire::{check, etag, task as wire};

/// Returns the command for the fields that an update names.
pub(super) fn changes(request: &v1::UpdateTaskRequest, given: &v1::Task) -> Result<task::Command, Status> {
    let paths = request.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        return Err(invalid("update_mask", "must name at least one of priority, labels, desired_state"));
    }
    let (mut priority, mut labels, mut desired) = (None, None, None);
    for path in paths {
        match path.as_str() {
            "priority" => {
                let value = given.priority.map_or(Some(Priority::NORMAL), Priority::new);
                priority = Some(value.ok_or_else(|| invalid("task.priority", "must be from 0 to 10"))?);
            }
            "labels" => {
                check::labels("task.labels", &given.labels)?;
                labels = Some(given.labels.clone());
            }
            "desired_state" | "desiredState" => {
                let wanted = v1::DesiredState::try_from(given.desired_state)
                    .map_err(|_| invalid("task.desired_state", "is not a known state"))?;
                desired = Some(wire::from_desired(wanted));
            }
            other => {
                let why = format!(
                    "{:?} cannot be updated; priority, labels and desired_state can",
                    check::shorten(other)
                );
                return Err(invalid("update_mask", why));
            }
        }
    }
    Ok(task::Command::Update { priority, labels, desired, reason: String::new() })
}

/// Returns an update that depends on the settings of the task whose etag was checked, inside its commit.
pub(super) fn as_read(given: &str, old: &Task, command: task::Command) -> task::Command {
    match command {
        task::Command::Update { priority, labels, desired, reason } if etag::is_specific(given) => {
            task::Command::UpdateAsRead { read: old.settings(), priority, labels, desired, reason }
        }
        other => other,
    }
}

/// Returns whether a change is a cancellation, which stands from any caller.
pub(super) fn cancels_only(command: &task::Command) -> bool {
    matches!(
        command,
        task::Command::Update { priority: None, labels: None, desired: Some(Desired::Cancelled), .. }
    )
}
