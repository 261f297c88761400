//! Gaps between the events of an attempt, and those of which the events were acknowledged and lost with the store: the worker does not have
//! them any more, and the attempt continues with a notice in their place.

use prost::Message;
use rota_core::task::{self, EventEffect, Item};
use rota_core::{Fence, TaskId};
use rota_proto::names;
use rota_proto::v1::{self, event::Kind};
use rota_store::{Command, Refused};
use tonic::Status;

use super::decode;
use super::deps::{Opened, SessionDeps};
use super::inbound::{After, Batch};
use crate::clock::now;

type Attempt = (TaskId, Fence);

/// Events of an attempt that the store lacks.
pub(super) struct Gap {
    attempt: Attempt,
    first: u64,
    last: u64,
}

/// Returns the first gap of each attempt in a batch that was answered.
pub(super) fn gaps(batch: &Batch) -> Vec<Gap> {
    let mut found: Vec<Gap> = Vec::new();
    for (after, answer) in batch.after.iter().zip(batch.answers.iter().flatten()) {
        let attempt = after.attempt();
        if let Err(Refused::Rejected(task::Rejected::Gap { expected: first, got })) = answer
            && found.iter().all(|gap| gap.attempt != attempt)
        {
            // A result names the last event before it.
            let last = if matches!(after, After::Finished(..)) { *got } else { got.saturating_sub(1) };
            found.push(Gap { attempt, first: *first, last });
        }
    }
    found
}

/// Records a gap between the events of an attempt. Returns whether an earlier session of the worker had one too. The first
/// gap ends the session: the worker resumes after the last event in the log, and may have the missing one. If it has not,
/// further sessions would end the same way, each time for the worker's other attempts too.
pub(super) fn is_repeated_gap(deps: &SessionDeps, opened: &Opened, attempt: Attempt) -> bool {
    deps.scheduler.update(&opened.key, &opened.worker, |entry| !entry.gaps.insert(attempt)) == Some(true)
}

fn had_gap(deps: &SessionDeps, opened: &Opened, attempt: Attempt) -> bool {
    deps.scheduler.update(&opened.key, &opened.worker, |entry| entry.gaps.contains(&attempt)) == Some(true)
}

/// Commits a batch again whose gaps are repeated, with notices in the place of events that the store has lost.
pub(super) async fn close_gaps(deps: &SessionDeps, opened: &Opened, batch: &mut Batch) -> Result<(), Status> {
    let is_repeated = |gap: &Gap| had_gap(deps, opened, gap.attempt);
    if deps.lost_history.loss.is_none() || !gaps(batch).iter().any(is_repeated) {
        return Ok(());
    }
    // Boxed: sessions hold this future while they are idle.
    Box::pin(close_repeated(deps, opened, batch)).await
}

async fn close_repeated(deps: &SessionDeps, opened: &Opened, batch: &mut Batch) -> Result<(), Status> {
    // The batch before it may have closed them.
    batch.answers = deps.store.apply(batch.commands.clone()).await;
    let (mut notices, mut tasks) = (Vec::new(), Vec::new());
    for gap in gaps(batch).iter().filter(|gap| had_gap(deps, opened, gap.attempt)) {
        if let Some(notice) = notice(deps, opened, gap).await? {
            notices.push(notice);
            tasks.push(names::task(opened.key.0.as_str(), gap.attempt.0));
        }
    }
    if !notices.is_empty() {
        deps.store.apply(notices).await.map_err(crate::wire::status::store)?;
        tasks.into_iter().for_each(|task| deps.lost_history.lost_events(task));
        batch.answers = deps.store.apply(batch.commands.clone()).await;
    }
    Ok(())
}

/// Returns the command that closes a gap, if the attempt began before the store lost commits.
async fn notice(deps: &SessionDeps, opened: &Opened, gap: &Gap) -> Result<Option<Command>, Status> {
    let ((id, fence), namespace) = (gap.attempt, &opened.key.0);
    let Some(loss) = deps.lost_history.loss else { return Ok(None) };
    let task = deps.store.record(namespace, id).await?;
    let assignment = task.and_then(|task| task.assignment);
    if assignment.is_none_or(|assignment| assignment.at >= loss.noticed) {
        return Ok(None);
    }
    let Gap { first, last, .. } = *gap;
    tracing::warn!(worker = %opened.key.1, task = %id, first, last, "events of an attempt were lost with the store");
    let event = v1::Event {
        kind: Some(Kind::Notice(v1::Notice {
            severity: v1::Severity::High.into(),
            code: "history_lost".to_owned(),
            message: format!(
                "the store has lost the events {first} to {last} of the attempt, which continues"
            ),
        })),
        ..v1::Event::default()
    };
    let lost = last.saturating_sub(first).saturating_add(1);
    let item = Item { at: now(), payload: event.encode_to_vec().into(), effect: EventEffect::Lost(lost) };
    let attempt = decode::by(&opened.worker, fence);
    let command = task::Command::Report { attempt, first, items: vec![item] };
    Ok(Some(Command::Task { namespace: namespace.clone(), id, command }))
}
