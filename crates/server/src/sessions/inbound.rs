//! Messages of a worker, in order: gathered into batches, committed, acknowledged after the commit. A few batches may be
//! pending at a time, so that the stream does not wait for the disk; backpressure limits the rest.

use std::collections::HashSet;

use futures::stream::{Fuse, FuturesOrdered};
use futures::{FutureExt, StreamExt};
use rota_core::failure::{Class, Failure};
use rota_core::task;
use rota_core::{Fence, TaskId};
use rota_proto::worker::v1::SessionRequest;
use rota_proto::worker::v1::session_request::Kind;
use rota_store::{Command, Error, Refused, Reply};
use tonic::{Status, Streaming};

use super::acknowledge::{ack, result_ack};
use super::deps::{Opened, SessionDeps};
use super::take::{take, take_large};
use super::{STORE_RETRY_DELAY, lost_events};
use crate::clock::now;
use crate::dispatcher::STALE_ATTEMPT_GRACE;
use crate::message_limits::Sizes;
use crate::scheduler::SessionHandle;
use crate::store_client::Replies;
use crate::wire::status;

/// Messages of one batch at most.
const MAX_BATCH: usize = 256;
/// Memory after which a batch takes no further message.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Pending batches at most. Further messages wait in the stream, whose flow control holds the worker back.
const MAX_PENDING: usize = 4;

/// Messages of a worker that are committed together.
pub(super) struct Batch {
    pub(super) commands: Vec<Command>,
    pub(super) after: Vec<After>,
    pub(super) answers: Replies,
}

impl Batch {
    fn is_unavailable(&self) -> bool {
        matches!(self.answers, Err(Error::Unavailable { .. }))
    }

    /// Whether a command lacks an earlier one, which may be in a batch that was not committed.
    fn has_gap(&self) -> bool {
        !lost_events::gaps(self).is_empty()
    }
}

/// What to do when a command has been committed.
#[derive(Clone)]
pub(super) enum After {
    Accepted(TaskId, Fence),
    /// What its model calls use is known.
    Identified(TaskId, Fence),
    Rejected(TaskId, Fence),
    Released(TaskId, Fence),
    Reported(TaskId, Fence),
    Finished(TaskId, Fence, AttemptResult),
}

impl After {
    pub(super) fn attempt(&self) -> (TaskId, Fence) {
        match self {
            Self::Accepted(id, fence)
            | Self::Identified(id, fence)
            | Self::Rejected(id, fence)
            | Self::Released(id, fence)
            | Self::Reported(id, fence)
            | Self::Finished(id, fence, _) => (*id, *fence),
        }
    }
}

/// Result of an attempt, for its worker's statistics.
#[derive(Clone, Copy)]
pub(super) enum AttemptResult {
    Succeeded,
    Failed,
    Cancelled,
}

pub(super) async fn run(
    deps: &SessionDeps,
    opened: &Opened,
    inbound: Box<Streaming<SessionRequest>>,
    sizes: &Sizes,
) -> Result<(), Status> {
    let mut inbound = inbound.fuse();
    let mut pending = FuturesOrdered::new();
    let silence = deps.timing.heartbeat_timeout;
    let mut failed = HashSet::new();
    loop {
        tokio::select! {
            biased;
            Some(batch) = pending.next(), if !pending.is_empty() => {
                settle(deps, opened, &mut failed, batch, &mut pending).await?;
            }
            chunk = tokio::time::timeout(silence, gather(&mut inbound, sizes)), if pending.len() < MAX_PENDING => {
                let chunk = chunk.map_err(|_| Status::deadline_exceeded("no message from the worker within the heartbeat timeout"))?;
                let Some(chunk) = chunk else { break };
                let mut commands = Vec::with_capacity(chunk.len());
                let mut after = Vec::with_capacity(chunk.len());
                let mut lazy = true;
                for message in chunk {
                    let Some(kind) = message?.kind else { continue };
                    lazy &= matches!(kind, Kind::Accept(_));
                    let taken = match kind {
                        // Boxed, as what is rare below: idle sessions hold this future.
                        Kind::Report(_) | Kind::Result(_) => Box::pin(take_large(deps, opened, kind)).await?,
                        kind => take(deps, opened, kind)?,
                    };
                    if let Some((command, then)) = taken {
                        commands.push(command);
                        after.push(then);
                    }
                }
                deps.scheduler.update(&opened.key, &opened.worker, |entry| entry.stats.last_seen_at = now());
                if !commands.is_empty() {
                    let store = deps.store.clone();
                    pending.push_back(async move {
                        let again = commands.clone();
                        let answers: Replies =
                            if lazy { store.apply_lazily(commands).await } else { store.apply(commands).await };
                        Batch { commands: again, after, answers }
                    });
                }
            }
        }
    }
    while let Some(batch) = pending.next().await {
        settle(deps, opened, &mut failed, batch, &mut pending).await?;
    }
    Ok(())
}

/// Answers a batch. While the store is unavailable, it is committed again and again, then the batches after it that failed
/// too or lack it: the session stays up, and with it the worker's attempts.
async fn settle(
    deps: &SessionDeps,
    opened: &Opened,
    failed: &mut HashSet<(TaskId, Fence)>,
    mut batch: Batch,
    pending: &mut FuturesOrdered<impl Future<Output = Batch>>,
) -> Result<(), Status> {
    if !batch.is_unavailable() {
        lost_events::close_gaps(deps, opened, &mut batch).await?;
        return answer(deps, opened, failed, batch.after, batch.answers);
    }
    Box::pin(settle_later(deps, opened, failed, batch, pending)).await
}

async fn settle_later(
    deps: &SessionDeps,
    opened: &Opened,
    failed: &mut HashSet<(TaskId, Fence)>,
    batch: Batch,
    pending: &mut FuturesOrdered<impl Future<Output = Batch>>,
) -> Result<(), Status> {
    tracing::warn!(worker = %opened.key.1, "the store is unavailable: a worker's messages wait");
    let mut batches = vec![batch];
    while let Some(batch) = pending.next().await {
        batches.push(batch);
    }
    for mut batch in batches {
        if batch.has_gap() {
            batch.answers = deps.store.apply(batch.commands.clone()).await;
        }
        while batch.is_unavailable() {
            tokio::time::sleep(STORE_RETRY_DELAY).await;
            batch.answers = deps.store.apply(batch.commands.clone()).await;
        }
        lost_events::close_gaps(deps, opened, &mut batch).await?;
        answer(deps, opened, failed, batch.after, batch.answers)?;
    }
    Ok(())
}

/// Waits for a message, and adds those that have arrived too, up to the limits of a batch. None at the end.
async fn gather(
    inbound: &mut Fuse<Box<Streaming<SessionRequest>>>,
    sizes: &Sizes,
) -> Option<Vec<Result<SessionRequest, Status>>> {
    let mut next = inbound.next().await;
    let (mut batch, mut size) = (Vec::new(), 0);
    while let Some(message) = next {
        size += message.as_ref().map_or(0, |_| sizes.take());
        batch.push(message);
        let full = batch.len() >= MAX_BATCH || size >= MAX_BATCH_BYTES;
        next = if full { None } else { inbound.next().now_or_never().flatten() };
    }
    (!batch.is_empty()).then_some(batch)
}

/// Answers the messages of a batch. `failed` has the attempts that this session failed because of their reports.
fn answer(
    deps: &SessionDeps,
    opened: &Opened,
    failed: &mut HashSet<(TaskId, Fence)>,
    after: Vec<After>,
    answers: Replies,
) -> Result<(), Status> {
    // Nothing of the batch was committed, and nothing will be: the store is closed or broken.
    let answers = answers.map_err(status::store)?;
    let session = session(deps, opened)?;
    for (after, answer) in after.into_iter().zip(answers) {
        let reply = match &answer {
            Ok(Reply::Task(_, reply)) => Some(*reply),
            Ok(_) => None,
            // The record was removed or is damaged, or the fence was never given out: in any case the attempt is stale.
            Err(
                Refused::NoTask(_)
                | Refused::Corrupt { .. }
                | Refused::Rejected(task::Rejected::UnknownFence(_)),
            ) => Some(task::Reply::Stale),
            Err(Refused::Rejected(task::Rejected::State(_) | task::Rejected::Final(_))) => {
                Some(task::Reply::Stale)
            }
            // Fails the attempt, not the session: the worker would only send it again in the next one.
            Err(Refused::Rejected(task::Rejected::TooMany(what)))
                if let After::Reported(id, fence) = after =>
            {
                fail(deps, opened, failed, (id, fence), format!("the attempt has too many {what}"));
                Some(task::Reply::Stale)
            }
            // What the worker sent before it learned that the attempt has failed.
            Err(Refused::Rejected(task::Rejected::Gap { .. })) if failed.contains(&after.attempt()) => {
                Some(task::Reply::Stale)
            }
            Err(Refused::Rejected(task::Rejected::Gap { expected, got }))
                if lost_events::is_repeated_gap(deps, opened, after.attempt()) =>
            {
                let text =
                    format!("event {expected} of the attempt is missing, the worker continues with {got}");
                fail(deps, opened, failed, after.attempt(), text);
                Some(task::Reply::Stale)
            }
            Err(refused) => return Err(status::refused(refused.clone())),
        };
        match after {
            After::Reported(id, fence) if let Some(task::Reply::Reported(seq)) = reply => {
                session.send(ack(id, fence, seq, false));
            }
            After::Accepted(id, fence) if reply != Some(task::Reply::Stale) => {
                deps.deltas.ask(&opened.key, id, fence, &session);
                record(deps, opened, "started", id)
            }
            After::Identified(..) if reply != Some(task::Reply::Stale) => {}
            After::Accepted(id, fence) | After::Identified(id, fence) | After::Reported(id, fence) => {
                deps.dispatcher.mark_abandoned(&opened.key, &opened.worker, id, fence, STALE_ATTEMPT_GRACE);
                session.send(ack(id, fence, 0, true));
            }
            // The commit sends what follows. If it is refused, the attempt continues.
            After::Released(..) => {}
            After::Rejected(id, fence) => {
                record(deps, opened, "rejected", id);
                deps.free(opened, id, fence);
            }
            After::Finished(id, fence, result) => {
                failed.remove(&(id, fence));
                let accepted = answer.is_ok() && reply != Some(task::Reply::Stale);
                if accepted {
                    finished(deps, opened, id, result);
                }
                deps.free(opened, id, fence);
                session.send(result_ack(id, fence, accepted));
            }
        }
    }
    Ok(())
}

/// Fails an attempt because of what its worker sent, and notes that it was failed.
fn fail(
    deps: &SessionDeps,
    opened: &Opened,
    failed: &mut HashSet<(TaskId, Fence)>,
    (id, fence): (TaskId, Fence),
    message: String,
) {
    let failure = Failure::new(Class::Protocol, message);
    deps.dispatcher.fail_attempt(opened.key.0.clone(), opened.worker.clone(), id, fence, failure);
    failed.insert((id, fence));
}

fn record(deps: &SessionDeps, opened: &Opened, what: &'static str, id: TaskId) {
    deps.scheduler.update(&opened.key, &opened.worker, |entry| entry.stats.record(now(), what, Some(id)));
}

fn finished(deps: &SessionDeps, opened: &Opened, id: TaskId, result: AttemptResult) {
    deps.scheduler.update(&opened.key, &opened.worker, |entry| {
        let stats = &mut entry.stats;
        let (count, what) = match result {
            AttemptResult::Succeeded => (&mut stats.succeeded, "succeeded"),
            AttemptResult::Failed => (&mut stats.failed, "failed"),
            AttemptResult::Cancelled => (&mut stats.cancelled, "cancelled"),
        };
        *count += 1;
        stats.record(now(), what, Some(id));
    });
}

/// Returns this session if it is still up: in a newer one, "stale" would end an attempt that continues there.
pub(super) fn session(deps: &SessionDeps, opened: &Opened) -> Result<SessionHandle, Status> {
    let session = deps.scheduler.update(&opened.key, &opened.worker, |entry| entry.session.clone());
    session.flatten().ok_or_else(|| Status::unavailable("the session has ended"))
}
