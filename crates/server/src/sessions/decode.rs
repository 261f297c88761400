//! Decoding of workers' messages into commands.

use rota_core::failure::{Class, Failure};
use rota_core::quota::{CredentialId, ModelAccess};
use rota_core::task::{self, AttemptRef, Completion, WorkerRef};
use rota_core::text::prefix;
use rota_core::{Fence, TaskId, Timestamp};
use rota_proto::limits::{RESULT_BYTES, RESULT_TEXT_BYTES};
use rota_proto::v1::TaskResult;
use rota_proto::worker::v1 as wire;
use rota_telemetry::redact;
use tonic::Status;

use bytes::Bytes;
use prost::Message;

use crate::wire::status::{error, invalid};
use crate::wire::{check, clean, event, failure};

/// More entries than fit into a message: a worker that was disconnected limits what it gathered by bytes, not by number.
const MAX_EVENTS: usize = 1 << 18;
/// Limit for texts that are cut to a shorter length after redaction. The margin is larger than any key, so that none is
/// cut in two.
const MAX_UNREDACTED: usize = RESULT_TEXT_BYTES + (64 << 10);

const MAX_BACKEND: usize = 256;
/// Size up to which a message is decoded on the runtime's threads.
const MAX_INLINE_BYTES: usize = 128 << 10;

/// Decodes a message, a large one on a thread for blocking work: redaction reads all of it.
pub(super) async fn off_runtime<M: Message + 'static>(
    message: M,
    decode: impl FnOnce(M) -> Result<task::Command, Status> + Send + 'static,
) -> Result<task::Command, Status> {
    if message.encoded_len() <= MAX_INLINE_BYTES {
        return decode(message);
    }
    let decoded = tokio::task::spawn_blocking(move || decode(message)).await;
    decoded.map_err(|_| Status::internal("decoding of a message panicked"))?
}

/// Leaves the reports of an attempt out of the log, and keeps their effects.
pub(super) fn leave_out(command: &mut task::Command) {
    if let task::Command::Report { items, .. } = command {
        items.iter_mut().for_each(|item| item.payload = Bytes::new());
    }
}

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
        Some(wire::result::Kind::Failed(mut failed)) => {
            failed.message = failure::cut(failed.message, MAX_UNREDACTED);
            failed.hint = failure::cut(failed.hint, MAX_UNREDACTED);
            clean::failure(&mut failed);
            let failure = failure::from_wire(failed);
            match result.undelivered.map(bounded) {
                // The machine may have failed at it.
                Some(Completion::Succeeded(result))
                    if matches!(failure.class, Class::Delivery | Class::Environment) =>
                {
                    Completion::Undelivered { failure, result: result.unwrap_or_default() }
                }
                // It is too large.
                Some(refused @ Completion::Failed(_)) => refused,
                _ => Completion::Failed(failure),
            }
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
            usage.model = failure::cut(usage.model, 1024);
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
    // Sizes before contents: redaction reads all of a text, and a message may have several MiB.
    result.text = failure::cut(result.text, MAX_UNREDACTED);
    let mut size = result.encoded_len();
    if size <= RESULT_BYTES {
        clean::result(&mut result);
        result.text = failure::cut(result.text, RESULT_TEXT_BYTES);
        size = result.encoded_len();
    }
    if size > RESULT_BYTES {
        let message = format!("the result has {size} bytes; at most {RESULT_BYTES} are stored");
        let mut failed = Failure::new(Class::Invalid, message);
        failed.hint = "write large results to files in the workspace, and return their names".to_owned();
        return Completion::Failed(failed);
    }
    Completion::Succeeded((size > 0).then(|| result.encode_to_vec().into()))
}

/// Returns what the model calls of an attempt use, if its acceptance names it.
pub(super) fn model_access<K: std::ops::Deref<Target = [u8; 32]>>(
    key: impl FnOnce() -> K,
    id: &str,
    backend: &str,
) -> Result<Option<ModelAccess>, Status> {
    let access = ModelAccess {
        credential: credential("credential", id)?,
        at_backend: credential_at("credential", key, id, backend)?,
        backend: backend_name(backend),
    };
    Ok(Some(access).filter(|access| !access.is_unknown()))
}

/// Returns the id of a credential at its back end. The `key` is derived only for one that is named.
pub(super) fn credential_at<K: std::ops::Deref<Target = [u8; 32]>>(
    field: &str,
    key: impl FnOnce() -> K,
    id: &str,
    backend: &str,
) -> Result<Option<CredentialId>, Status> {
    let at = |id: CredentialId| {
        CredentialId(rota_proto::credential::at_backend(&key()[..], id.0, prefix(backend, MAX_BACKEND)))
    };
    Ok(credential(field, id)?.map(at))
}

/// Returns the name of a back end as it is shown; empty for one that no host or provider has.
fn backend_name(given: &str) -> String {
    let known = |text: &&str| text.chars().all(|letter| letter.is_ascii_graphic() && letter != '/');
    let mut name = Some(prefix(given, MAX_BACKEND)).filter(known).unwrap_or_default().to_owned();
    redact::text(&mut name);
    name
}

/// Parses the id of a credential.
pub(super) fn credential(field: &str, id: &str) -> Result<Option<CredentialId>, Status> {
    match id {
        "" => Ok(None),
        id => id.parse().map(Some).map_err(|_| invalid(field, "must have 16 hexadecimal digits")),
    }
}

pub(super) fn by(worker: &WorkerRef, fence: Fence) -> AttemptRef {
    AttemptRef { by: worker.clone(), fence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversized_result_fails_and_large_text_is_cut() {
        let many = TaskResult { files: vec!["x".repeat(1 << 16); 32], ..TaskResult::default() };
        assert!(matches!(bounded(many), Completion::Failed(failed) if failed.class == Class::Invalid));
        let key = format!("sk-{}-{}", "ant", "x".repeat(40));
        let text = format!("{}{key} {}", "y".repeat(RESULT_TEXT_BYTES - 20), "z".repeat(4 << 20));
        let long = TaskResult { text, ..TaskResult::default() };
        let Completion::Succeeded(Some(stored)) = bounded(long) else { panic!("refused") };
        let stored = TaskResult::decode(&stored[..]).unwrap();
        assert_eq!(stored.text.len(), RESULT_TEXT_BYTES);
        assert!(stored.text.ends_with("[redacted] zzzzzzzzz"));
    }
}
