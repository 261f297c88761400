//! Delivery of what an attempt has changed in its repository: the push, and the request that follows. Also that of an earlier attempt,
//! whose work could not be delivered then.

use std::path::Path;
use std::time::Duration;

use rota_proto::v1::{Changes, Delivery, DeliveryOutcome, Failure, FailureClass, Severity, event};
use rota_proto::worker::v1::UndeliveredWork;
use tokio::sync::watch;

use super::calls::Caller;
use super::give::Given;
use super::keep::Kept;
use crate::git::{self, Undelivered, Work};
use crate::report::{failure, notice};
use crate::runtimes::{RunOutcome, RunReport};
use crate::workspace::AttemptDirs;

/// Time for which a storage that has the work is waited for in a slot. A later attempt delivers it as well.
const MAX_STALL: Duration = Duration::from_secs(30);
const HINT_PART: &str =
    "put the part back from a copy of the storage of artifacts: the work is then delivered";

impl Work {
    /// Returns that of an attempt, if it has succeeded.
    pub(crate) fn of(report: &RunReport) -> Option<Self> {
        let RunOutcome::Succeeded(result) = &report.outcome else { return None };
        let cost_micro_usd = report.usage.as_ref().map_or(0, |usage| usage.cost_micro_usd);
        Some(Self { result: result.text.clone(), cost_micro_usd })
    }
}

/// Pushes changes, if there are any; `pushing` is true meanwhile. Returns what has become of them.
pub(super) async fn push(
    delivery: &git::Delivery,
    changes: &mut Changes,
    scratch: &Path,
    notices: &mut Vec<event::Kind>,
    pushing: &watch::Sender<bool>,
) -> Result<Delivery, Undelivered> {
    let mut delivered = Delivery {
        outcome: DeliveryOutcome::NoChange.into(),
        base_commit: changes.base_commit.clone(),
        ..Delivery::default()
    };
    if changes.commit == changes.base_commit {
        notices.push(notice(Severity::Low, "not_delivered", "nothing has changed: nothing is pushed"));
        return Ok(delivered);
    }
    // The list of an earlier attempt is what its worker has sent, or who had its token.
    if changes.branch != delivery.branch {
        let text = format!(
            "the work is not delivered to {}: it is of the branch {:?}",
            delivery.branch, changes.branch
        );
        return Err(failure(FailureClass::Delivery, text).into());
    }
    pushing.send_replace(true);
    let pushed = delivery.push(changes, scratch).await;
    pushing.send_replace(false);
    pushed?;
    notices.push(notice(Severity::Low, "delivered", format!("pushed {}", delivery.branch)));
    changes.pushed = true;
    delivered.set_outcome(DeliveryOutcome::Delivered);
    delivered.branch.clone_from(&delivery.branch);
    delivered.commit.clone_from(&changes.commit);
    Ok(delivered)
}

/// Opens the request of what was pushed, or updates it, if the task asks for one.
pub(super) async fn request(
    delivery: &git::Delivery,
    delivered: &mut Delivery,
    work: &Work,
    notices: &mut Vec<event::Kind>,
) -> Result<(), Undelivered> {
    let is_pushed = delivered.outcome() == DeliveryOutcome::Delivered;
    let Some(request) = delivery.request.as_ref().filter(|_| is_pushed) else { return Ok(()) };
    let (opened, missing) = request.open(&delivered.branch, work, delivery.patience).await?;
    let what = if opened.created { "opened" } else { "updated" };
    let text = format!("{what} {}, to be merged into {}", opened.url, opened.base);
    notices.push(notice(Severity::Low, "pull_request", text));
    if !missing.is_empty() {
        let text = format!("the pull request is open without {}", missing.join("; "));
        notices.push(notice(Severity::Medium, "pull_request_incomplete", text));
    }
    delivered.pull_request = Some(opened);
    Ok(())
}

/// Returns why the work of an earlier attempt is not delivered whose bundle was not fetched. The work is done, and a part that the
/// storage has lost or damaged may be put back.
fn unfetched(outcome: RunOutcome) -> Undelivered {
    let text = |what: &str| format!("the work of the earlier attempt is not delivered: {what}");
    match outcome {
        RunOutcome::Failed(failed) if failed.class() == FailureClass::Invalid => {
            let failure = failure(FailureClass::Delivery, text(&failed.message));
            let failure = Failure { hint: HINT_PART.to_owned(), ..failure };
            Undelivered { is_kept: true, ..failure.into() }
        }
        // The storage is away, or the disk of the worker has no room.
        RunOutcome::Failed(failed) => failed.into(),
        _ => Undelivered::later(text("the attempt was stopped")),
    }
}

/// Delivers the work of an earlier attempt, whose artifacts become those of this one.
pub(super) async fn again(
    caller: &Caller,
    kept: &Kept,
    dirs: &AttemptDirs,
    left: &UndeliveredWork,
    work: Work,
    pushing: &watch::Sender<bool>,
) -> Result<(Vec<event::Kind>, Option<Delivery>), Undelivered> {
    let refused = |what: &str| {
        let text = format!("the work of the earlier attempt cannot be delivered: {what}");
        Undelivered::from(failure(FailureClass::Delivery, text))
    };
    let mut list = left.artifacts.clone().unwrap_or_default();
    let mut changes = list.changes.clone().ok_or_else(|| refused("its changes are not kept"))?;
    let delivery = dirs.delivery.as_ref().ok_or_else(|| refused("the workspace has no repository"))?;
    let bundle = list.artifacts.iter().filter(|artifact| artifact.name == changes.bundle);
    let bundle = Given::files(bundle.cloned().collect());
    let patience = delivery.patience.min(MAX_STALL);
    let fetched = bundle.fetch(caller, &kept.namespace, &dirs.scratch, patience, &|_| ());
    fetched.await.map_err(unfetched)?;
    let mut notices = Vec::new();
    let mut delivered = push(delivery, &mut changes, &dirs.scratch, &mut notices, pushing).await?;
    list.changes = Some(changes);
    let missing = match caller.keep_list(kept, list).await {
        Ok(Some(missing)) if missing.is_empty() => None,
        Ok(Some(_)) => Some("the control plane has lost parts that it had stored".to_owned()),
        // Another attempt has taken the place of this one.
        Ok(None) => return Ok((notices, None)),
        Err(status) => Some(status.message().to_owned()),
    };
    notices.extend(missing.map(|text| notice(Severity::Medium, "artifacts_not_stored", text)));
    let work = Work { cost_micro_usd: left.cost_micro_usd, ..work };
    request(delivery, &mut delivered, &work, &mut notices).await?;
    Ok((notices, Some(delivered)))
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;

    #[test]
    fn damaged_bundles_are_fetched_again() {
        let of = |code| {
            let failed = Caller::failure("failed to fetch git/changes.bundle", &Status::new(code, "damaged"));
            unfetched(RunOutcome::Failed(failed))
        };
        let damaged = of(Code::DataLoss);
        assert!(damaged.is_kept && !damaged.awaits_storage, "{damaged:?}");
        assert_eq!(
            (damaged.failure.class(), damaged.failure.hint.as_str()),
            (FailureClass::Delivery, HINT_PART)
        );
        assert!(damaged.failure.message.ends_with("changes.bundle: damaged (DataLoss)"), "{damaged:?}");
        // The control plane repeats these as well, and finds storages and machines at fault by their class.
        assert_eq!(of(Code::Unavailable).failure.class(), FailureClass::Source);
        let stopped = unfetched(RunOutcome::Stopped { by: "interrupt" });
        assert!(stopped.is_kept, "{stopped:?}");
    }
}
