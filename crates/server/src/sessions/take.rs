//! Commands that the messages of a worker are, and what to do when each has been committed. Knows nothing of batches.

use rota_core::TaskId;
use rota_core::task::{self, Completion};
use rota_proto::worker::v1::session_request::Kind;
use rota_store::Command;
use rota_telemetry::redact;
use tonic::Status;

use super::acknowledge::result_ack;
use super::deps::{Opened, SessionDeps};
use super::inbound::{After, AttemptResult, session};
use super::{decode, results, worker_state};
use crate::clock::now;
use crate::wire::{failure, status};

/// Open questions of an attempt that waits for all of them, at most; and one, so that too many do not match.
const MAX_RELEASED: usize = 33;

/// Command of an attempt of this session's worker.
fn of(opened: &Opened, id: TaskId, command: task::Command) -> Command {
    Command::Task { namespace: opened.key.0.clone(), id, command }
}

/// Takes a message that costs little. Reports and results are for [`take_large`].
pub(super) fn take(
    deps: &SessionDeps,
    opened: &Opened,
    kind: Kind,
) -> Result<Option<(Command, After)>, Status> {
    let of = |id, command| of(opened, id, command);
    let taken = match kind {
        Kind::Hello(_) => return Err(status::error("PROTOCOL_VIOLATION", "Hello must come only once")),
        Kind::Accept(accept) => {
            let (id, fence) = decode::attempt_ref("accept", &accept.task_id, accept.fence)?;
            let attempt = decode::by(&opened.worker, fence);
            let key = || deps.dispatcher.sealer.credential_key(&opened.key.0);
            match decode::model_access(key, &accept.credential, &accept.backend)? {
                Some(access) => {
                    (of(id, task::Command::UseModel { attempt, access }), After::Identified(id, fence))
                }
                None => (of(id, task::Command::Accept(attempt)), After::Accepted(id, fence)),
            }
        }
        Kind::Reject(reject) => {
            let (id, fence) = decode::attempt_ref("reject", &reject.task_id, reject.fence)?;
            let attempt = decode::by(&opened.worker, fence);
            let mut reason = failure::cut(reject.reason, 1024);
            redact::text(&mut reason);
            deps.finishing(opened, id, fence);
            (of(id, task::Command::Reject { attempt, reason }), After::Rejected(id, fence))
        }
        Kind::Release(mut release) => {
            // More than can be open are not those that are.
            release.request_ids.truncate(MAX_RELEASED);
            let (id, fence) = decode::attempt_ref("release", &release.task_id, release.fence)?;
            let (attempt, requests) = (decode::by(&opened.worker, fence), release.request_ids);
            (of(id, task::Command::Release { attempt, requests }), After::Released(id, fence))
        }
        Kind::Streamed(streamed) => {
            let (id, fence) = decode::attempt_ref("streamed", &streamed.task_id, streamed.fence)?;
            if let Some(delta) = streamed.delta
                && deps.scheduler.runs(&opened.key, &opened.worker, id, fence)
            {
                deps.deltas.publish(&opened.key.0, id, delta);
            }
            return Ok(None);
        }
        kind => {
            worker_state::take(deps, opened, kind);
            return Ok(None);
        }
    };
    Ok(Some(taken))
}

/// Takes a message of any kind. A report or a result may be decoded on another thread.
pub(super) async fn take_large(
    deps: &SessionDeps,
    opened: &Opened,
    kind: Kind,
) -> Result<Option<(Command, After)>, Status> {
    match kind {
        Kind::Report(report) => {
            let (id, fence) = decode::attempt_ref("report", &report.task_id, report.fence)?;
            let (by, now) = (decode::by(&opened.worker, fence), now());
            let mut command =
                decode::off_runtime(report, move |report| decode::report(report, by, now)).await?;
            if deps.store.keeps_room_for_results() {
                decode::leave_out(&mut command);
            }
            Ok(Some((of(opened, id, command), After::Reported(id, fence))))
        }
        Kind::Result(result) => {
            let (id, fence) = decode::attempt_ref("result", &result.task_id, result.fence)?;
            let (by, jitter) = (decode::by(&opened.worker, fence), rand::random());
            let result = results::checked(deps, opened, id, fence, result).await?;
            let command =
                decode::off_runtime(result, move |result| decode::result(*result, by, jitter)).await?;
            // Of an abandoned attempt, only its end was awaited, and what it has used.
            let cancelled =
                matches!(&command, task::Command::Finish { completion: Completion::Stopped { .. }, .. });
            let reports_usage =
                matches!(&command, task::Command::Finish { usage: Some(usage), .. } if !usage.adds_nothing());
            if cancelled
                && !reports_usage
                && deps.scheduler.is_abandoned(&opened.key, &opened.worker, id, fence)
            {
                deps.free(opened, id, fence);
                session(deps, opened)?.send(result_ack(id, fence, false));
                return Ok(None);
            }
            deps.finishing(opened, id, fence);
            let result = match &command {
                _ if cancelled => AttemptResult::Cancelled,
                task::Command::Finish { completion: Completion::Succeeded(_), .. } => {
                    AttemptResult::Succeeded
                }
                _ => AttemptResult::Failed,
            };
            Ok(Some((of(opened, id, command), After::Finished(id, fence, result))))
        }
        kind => take(deps, opened, kind),
    }
}
