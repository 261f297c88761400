//! What workers say, checked and turned into commands.

use rota_core::failure::{Class, Failure};
use rota_core::task::{self, Ending, Held, WorkerRef};
use rota_core::{Fence, TaskId, Timestamp};
use rota_proto::v1::{FailureClass, TaskResult};
use rota_proto::worker::v1 as wire;
use tonic::Status;

use prost::Message;

use crate::wire::status::{error, invalid};
use crate::wire::{check, clean, event, failure};

/// More than any message can hold of entries that say anything: a worker that was cut off sends what it
/// gathered by bytes, not by number.
const MAX_EVENTS: usize = 1 << 18;
const MAX_RESULT: usize = 1 << 20;

/// Task and fence of a message.
pub(super) fn held(field: &str, id: &str, fence: i64) -> Result<(TaskId, Fence), Status> {
    let id = id.parse().map_err(|_| invalid(format!("{field}.task_id"), "is not a task's id"))?;
    let fence =
        u64::try_from(fence).map_err(|_| invalid(format!("{field}.fence"), "must not be negative"))?;
    Ok((id, Fence(fence)))
}

pub(super) fn report(report: wire::Report, held: Held, now: Timestamp) -> Result<task::Command, Status> {
    check::count("report.events", report.events.len(), MAX_EVENTS)?;
    let first = u64::try_from(report.first_attempt_seq)
        .map_err(|_| invalid("report.first_attempt_seq", "must not be negative"))?;
    let items = report.events.into_iter().map(|entry| event::item(entry, now)).collect();
    Ok(task::Command::Report { held, first, items })
}

pub(super) fn result(result: wire::Result, held: Held, jitter: f64) -> Result<task::Command, Status> {
    let ending = match result.kind {
        Some(wire::result::Kind::Succeeded(result)) => kept(result),
        // A worker that was stopped, or cut off for too long, says so itself. That counts with the workers that the
        // task has lost, not with its own failures.
        Some(wire::result::Kind::Failed(failed)) if failed.class() == FailureClass::WorkerLost => {
            Ending::Stopped { by: "stopping".to_owned() }
        }
        Some(wire::result::Kind::Failed(mut failed)) => {
            clean::failure(&mut failed);
            Ending::Failed(failure::from_wire(failed))
        }
        Some(wire::result::Kind::Cancelled(cancelled)) => {
            Ending::Stopped { by: failure::cut(cancelled.by, 32) }
        }
        None => return Err(error("PROTOCOL", "a result says neither succeeded, failed nor cancelled")),
    };
    Ok(task::Command::Finish {
        held,
        ending,
        usage: result.usage.map(|mut usage| {
            clean::usage(&mut usage);
            event::from_usage(usage)
        }),
        session: failure::cut(result.runtime_session, 256),
        jitter,
    })
}

/// A result to keep. One that is too large fails its attempt: refusing the message would end the session, and the
/// worker would say it again in the next.
fn kept(mut result: TaskResult) -> Ending {
    clean::result(&mut result);
    result.text = failure::cut(result.text, 256 << 10);
    let size = result.encoded_len();
    if size > MAX_RESULT {
        let message = format!("its result has {size} bytes; at most {MAX_RESULT} are kept");
        let mut failed = Failure::new(Class::Invalid, message);
        failed.hint = "write large results into files of the workspace, and name them".to_owned();
        return Ending::Failed(failed);
    }
    Ending::Succeeded((size > 0).then(|| result.encode_to_vec().into()))
}

pub(super) fn by(worker: &WorkerRef, fence: Fence) -> Held {
    Held { by: worker.clone(), fence }
}
