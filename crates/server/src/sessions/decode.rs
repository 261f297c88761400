//! Decoding of workers' messages into commands.

use rota_core::failure::{Class, Failure};
use rota_core::task::{self, AttemptRef, Completion, WorkerRef};
use rota_core::{Fence, TaskId, Timestamp};
use rota_proto::v1::{FailureClass, TaskResult};
use rota_proto::worker::v1 as wire;
use tonic::Status;

use prost::Message;

use crate::wire::status::{error, invalid};
use crate::wire::{check, clean, event, failure};

/// More entries than fit into a message: a worker that was disconnected limits what it gathered by bytes, not by number.
const MAX_EVENTS: usize = 1 << 18;
const MAX_RESULT: usize = 1 << 20;

/// Parses the task and fence of a message.
pub(super) fn attempt_ref(field: &str, id: &str, fence: i64) -> Result<(TaskId, Fence), Status> {
    let id = id.parse().map_err(|_| invalid(format!("{field}.task_id"), "is not a task id"))?;
    let fence =
        u64::try_from(fence).map_err(|_| invalid(format!("{field}.fence"), "must not be negative"))?;
    Ok((id, Fence(fence)))
}

pub(super) fn report(
    report: wire::Report,
    attempt: AttemptRef,
    now: Timestamp,
) -> Result<task::Command, Status> {
    check::count("report.events", report.events.len(), MAX_EVENTS)?;
    let first = u64::try_from(report.first_attempt_seq)
        .map_err(|_| invalid("report.first_attempt_seq", "must not be negative"))?;
    let items = report.events.into_iter().map(|entry| event::item(entry, now)).collect();
    Ok(task::Command::Report { attempt, first, items })
}

pub(super) fn result(
    result: wire::Result,
    attempt: AttemptRef,
    jitter: f64,
) -> Result<task::Command, Status> {
    let completion = match result.kind {
        Some(wire::result::Kind::Succeeded(result)) => bounded(result),
        // A worker that was stopped, or disconnected for too long, reports its own loss. It counts as a lost worker, not as a
        // failure of the task.
        Some(wire::result::Kind::Failed(failed)) if failed.class() == FailureClass::WorkerLost => {
            Completion::Stopped { by: "stopping".to_owned() }
        }
        Some(wire::result::Kind::Failed(mut failed)) => {
            clean::failure(&mut failed);
            Completion::Failed(failure::from_wire(failed))
        }
        Some(wire::result::Kind::Cancelled(cancelled)) => {
            Completion::Stopped { by: failure::cut(cancelled.by, 32) }
        }
        None => {
            return Err(error("PROTOCOL_VIOLATION", "a result must be succeeded, failed or cancelled"));
        }
    };
    let last = u64::try_from(result.last_attempt_seq)
        .map_err(|_| invalid("result.last_attempt_seq", "must not be negative"))?;
    Ok(task::Command::Finish {
        attempt,
        last,
        completion,
        usage: result.usage.map(|mut usage| {
            clean::usage(&mut usage);
            event::from_usage(usage)
        }),
        session: failure::cut(result.runtime_session, 256),
        jitter,
    })
}

/// Checks the size of a result. One that is too large fails its attempt: rejecting the message would end the session, and
/// the worker would send it again in the next one.
fn bounded(mut result: TaskResult) -> Completion {
    clean::result(&mut result);
    result.text = failure::cut(result.text, 256 << 10);
    let size = result.encoded_len();
    if size > MAX_RESULT {
        let message = format!("the result has {size} bytes; at most {MAX_RESULT} are stored");
        let mut failed = Failure::new(Class::Invalid, message);
        failed.hint = "write large results to files in the workspace, and return their names".to_owned();
        return Completion::Failed(failed);
    }
    Completion::Succeeded((size > 0).then(|| result.encode_to_vec().into()))
}

pub(super) fn by(worker: &WorkerRef, fence: Fence) -> AttemptRef {
    AttemptRef { by: worker.clone(), fence }
}
