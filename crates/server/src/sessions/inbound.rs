//! What a worker sends, in order: gathered into batches, committed, answered after the commit. A few
//! batches may be under way at a time, so that the stream does not wait for the disk.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use rota_core::failure::{Class, Failure};
use rota_core::task::{self, Ending};
use rota_core::{Fence, TaskId};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{self as wire, SessionRequest, session_response};
use rota_store::{Command, Refused, Reply};
use rota_telemetry::redact;
use tonic::{Status, Streaming};

use super::decode;
use super::hello::Opened;
use crate::dispatch::{Outgoing, Phase, STALE_GRACE, Seat};
use crate::shared::{Replies, Shared, now};
use crate::wire::{failure, status};

/// Messages of one batch, at most.
const BATCH: usize = 256;
/// Batches under way, at most. What a worker sends beyond waits in the stream, whose flow control holds it back.
const UNDER_WAY: usize = 4;

/// What to do when a command has been answered.
#[derive(Clone)]
enum After {
    Accepted(TaskId, Fence),
    Rejected(TaskId, Fence),
    Reported(TaskId, Fence),
    Finished(TaskId, Fence, How),
}

/// How an attempt ended, as far as its worker's figures go.
#[derive(Clone, Copy)]
enum How {
    Well,
    Badly,
    Cancelled,
}

pub(super) async fn run(
    shared: &Arc<Shared>,
    opened: &Opened,
    inbound: Streaming<SessionRequest>,
) -> Result<(), Status> {
    let mut inbound = inbound.ready_chunks(BATCH);
    let mut under_way = FuturesOrdered::new();
    let silence = shared.timing.heartbeat_timeout;
    loop {
        tokio::select! {
            biased;
            Some((after, answers)) = under_way.next(), if !under_way.is_empty() => {
                answer(shared, opened, after, answers)?;
            }
            chunk = tokio::time::timeout(silence, inbound.next()), if under_way.len() < UNDER_WAY => {
                let chunk = chunk.map_err(|_| Status::deadline_exceeded("nothing was heard of the worker"))?;
                let Some(chunk) = chunk else { break };
                let mut commands = Vec::with_capacity(chunk.len());
                let mut after = Vec::with_capacity(chunk.len());
                let mut lazy = true;
                for message in chunk {
                    let Some(kind) = message?.kind else { continue };
                    lazy &= matches!(kind, Kind::Accept(_));
                    if let Some((command, then)) = take(shared, opened, kind)? {
                        commands.push(command);
                        after.push(then);
                    }
                }
                shared.fleet.with(&opened.key, &opened.worker, |seat| seat.about.heard_at = now());
                if !commands.is_empty() {
                    let shared = Arc::clone(shared);
                    under_way.push_back(async move {
                        let answers: Replies =
                            if lazy { shared.write_lazily(commands).await } else { shared.write(commands).await };
                        (after, answers)
                    });
                }
            }
        }
    }
    while let Some((after, answers)) = under_way.next().await {
        answer(shared, opened, after, answers)?;
    }
    Ok(())
}

fn take(shared: &Arc<Shared>, opened: &Opened, kind: Kind) -> Result<Option<(Command, After)>, Status> {
    let of =
        |id: TaskId, command: task::Command| Command::Task { namespace: opened.key.0.clone(), id, command };
    let taken = match kind {
        Kind::Hello(_) => return Err(status::error("PROTOCOL", "Hello may come only once")),
        Kind::Accept(accept) => {
            let (id, fence) = decode::held("accept", &accept.task_id, accept.fence)?;
            (of(id, task::Command::Accept(decode::by(&opened.worker, fence))), After::Accepted(id, fence))
        }
        Kind::Reject(reject) => {
            let (id, fence) = decode::held("reject", &reject.task_id, reject.fence)?;
            let held = decode::by(&opened.worker, fence);
            let mut reason = failure::cut(reject.reason, 1024);
            redact::own_text(&mut reason);
            ending(shared, opened, id, fence);
            (of(id, task::Command::Reject { held, reason }), After::Rejected(id, fence))
        }
        Kind::Report(report) => {
            let (id, fence) = decode::held("report", &report.task_id, report.fence)?;
            let command = decode::report(report, decode::by(&opened.worker, fence), now())?;
            (of(id, command), After::Reported(id, fence))
        }
        Kind::Result(result) => {
            let (id, fence) = decode::held("result", &result.task_id, result.fence)?;
            let command = decode::result(result, decode::by(&opened.worker, fence), rand::random())?;
            // Of what no longer counts, that it has ended is all that was waited for.
            let cancelled = matches!(&command, task::Command::Finish { ending: Ending::Stopped { .. }, .. });
            if cancelled && phase(shared, opened, id, fence) == Some(Phase::Leaving) {
                free(shared, opened, id, fence);
                outgoing(shared, opened)?.send(result_ack(id, fence, false));
                return Ok(None);
            }
            ending(shared, opened, id, fence);
            let how = match &command {
                _ if cancelled => How::Cancelled,
                task::Command::Finish { ending: Ending::Succeeded(_), .. } => How::Well,
                _ => How::Badly,
            };
            (of(id, command), After::Finished(id, fence, how))
        }
        Kind::Heartbeat(beat) => {
            shared.fleet.with(&opened.key, &opened.worker, |seat| {
                seat.about.cpu = if beat.cpu.is_finite() { beat.cpu.clamp(0.0, 1.0) } else { 0.0 };
                seat.about.memory_bytes = beat.memory_bytes.max(0);
            });
            return Ok(None);
        }
        Kind::Draining(draining) => {
            tracing::info!(worker = %opened.key.1, reason = failure::cut(draining.reason, 256), "worker drains");
            shared.fleet.with(&opened.key, &opened.worker, |seat| {
                seat.draining = true;
                seat.about.did(now(), "draining", None);
            });
            shared.watchers.fleet_changed();
            return Ok(None);
        }
    };
    Ok(Some(taken))
}

fn answer(shared: &Arc<Shared>, opened: &Opened, after: Vec<After>, answers: Replies) -> Result<(), Status> {
    // Nothing of the batch has happened: the worker still has all of it and says it again in its next session.
    let answers = answers.map_err(status::store)?;
    let outgoing = outgoing(shared, opened)?;
    for (after, answer) in after.into_iter().zip(answers) {
        let reply = match &answer {
            Ok(Reply::Task(_, reply)) => Some(*reply),
            Ok(_) => None,
            // A record that is gone, or a fence that was never given: either way it does not count.
            Err(Refused::NoTask(_) | Refused::Rejected(task::Rejected::UnknownFence(_))) => {
                Some(task::Reply::Stale)
            }
            Err(Refused::Rejected(task::Rejected::State(_) | task::Rejected::Final(_))) => {
                Some(task::Reply::Stale)
            }
            // The attempt's fault: ended with the session, it would be said again in the next one.
            Err(Refused::Rejected(task::Rejected::TooMany(what)))
                if let After::Reported(id, fence) = after =>
            {
                let failed = Failure::new(Class::Protocol, format!("the attempt has too many {what}"));
                shared.fail_attempt(opened.key.0.clone(), opened.worker.clone(), id, fence, failed);
                Some(task::Reply::Stale)
            }
            Err(refused) => return Err(status::refused(refused.clone())),
        };
        match after {
            After::Reported(id, fence) if let Some(task::Reply::Reported(seq)) = reply => {
                outgoing.send(ack(id, fence, seq, false));
            }
            After::Accepted(id, _) if reply != Some(task::Reply::Stale) => did(shared, opened, "started", id),
            After::Accepted(id, fence) | After::Reported(id, fence) => {
                shared.leaving(&opened.key, &opened.worker, id, fence, STALE_GRACE);
                outgoing.send(ack(id, fence, 0, true));
            }
            After::Rejected(id, fence) => {
                did(shared, opened, "rejected", id);
                free(shared, opened, id, fence);
            }
            After::Finished(id, fence, how) => {
                let accepted = answer.is_ok() && reply != Some(task::Reply::Stale);
                if accepted {
                    finished(shared, opened, id, how);
                }
                free(shared, opened, id, fence);
                outgoing.send(result_ack(id, fence, accepted));
            }
        }
    }
    Ok(())
}

fn did(shared: &Shared, opened: &Opened, what: &'static str, id: TaskId) {
    shared.fleet.with(&opened.key, &opened.worker, |seat| seat.about.did(now(), what, Some(id)));
}

fn finished(shared: &Shared, opened: &Opened, id: TaskId, how: How) {
    shared.fleet.with(&opened.key, &opened.worker, |seat| {
        let about = &mut seat.about;
        let (count, what) = match how {
            How::Well => (&mut about.succeeded, "succeeded"),
            How::Badly => (&mut about.failed, "failed"),
            How::Cancelled => (&mut about.cancelled, "cancelled"),
        };
        *count += 1;
        about.did(now(), what, Some(id));
    });
}

/// Only of the session that asked: in a newer one, "stale" would end an attempt that goes on there.
fn outgoing(shared: &Shared, opened: &Opened) -> Result<Outgoing, Status> {
    let outgoing = shared.fleet.with(&opened.key, &opened.worker, |seat| seat.outgoing.clone()).flatten();
    outgoing.ok_or_else(|| Status::unavailable("the session has ended"))
}

fn phase(shared: &Shared, opened: &Opened, id: TaskId, fence: Fence) -> Option<Phase> {
    let phase = |seat: &mut Seat| seat.attempts.get(&(id, fence)).copied();
    shared.fleet.with(&opened.key, &opened.worker, phase).flatten()
}

/// It ends by the worker's own word; dispatch need not tell it to.
fn ending(shared: &Shared, opened: &Opened, id: TaskId, fence: Fence) {
    shared.fleet.with(&opened.key, &opened.worker, |seat| seat.advance(id, fence, Phase::Ending));
}

fn free(shared: &Shared, opened: &Opened, id: TaskId, fence: Fence) {
    shared.fleet.freed(&opened.key, &opened.worker, id, fence, now());
}

fn ack(id: TaskId, fence: Fence, seq: u64, stale: bool) -> session_response::Kind {
    session_response::Kind::ReportAck(wire::ReportAck {
        task_id: id.to_string(),
        fence: signed(fence.0),
        attempt_seq: signed(seq),
        stale,
    })
}

fn result_ack(id: TaskId, fence: Fence, accepted: bool) -> session_response::Kind {
    let (task_id, fence) = (id.to_string(), signed(fence.0));
    session_response::Kind::ResultAck(wire::ResultAck { task_id, fence, accepted })
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
