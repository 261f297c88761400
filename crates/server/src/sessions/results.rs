//! Results of attempts, checked before they are committed: their branches, and their data.

use rota_core::{Fence, TaskId};
use rota_proto::v1::Failure;
use rota_proto::worker::v1::{self as worker, result::Kind};
use tonic::{Code, Status};

use super::deps::{Opened, SessionDeps};
use super::{STORE_RETRY_DELAY, branches};
use crate::result_schemas::Attempt;

/// Returns a result, or the failure that takes its place.
pub(super) async fn checked(
    deps: &SessionDeps,
    opened: &Opened,
    id: TaskId,
    fence: Fence,
    mut result: Box<worker::Result>,
) -> Result<Box<worker::Result>, Status> {
    let attempt = (opened.key.0.clone(), id, fence);
    let is_plain = deps.dispatcher.result_schemas.take_plain(&attempt);
    // Boxed: sessions hold this future while they are idle.
    let failure = patiently(|| Box::pin(failure(deps, &attempt, is_plain, &result))).await?;
    if let Some(failure) = failure {
        (result.kind, result.undelivered) = (Some(Kind::Failed(failure)), None);
    }
    Ok(result)
}

/// Returns the failure of a result that names the branch of another task, or whose data does not fit.
async fn failure(
    deps: &SessionDeps,
    attempt: &Attempt,
    is_plain: bool,
    result: &worker::Result,
) -> Result<Option<Failure>, Status> {
    let foreign = branches::foreign(&deps.store, &attempt.0, attempt.1, result).await?;
    if foreign.is_some() || is_plain {
        return Ok(foreign);
    }
    deps.dispatcher.result_schemas.mismatch(&deps.store, attempt, result).await
}

/// Repeats a check while the store is away: the session stays up, and with it the worker's attempts.
async fn patiently<F>(mut check: impl FnMut() -> F) -> Result<Option<Failure>, Status>
where
    F: Future<Output = Result<Option<Failure>, Status>>,
{
    loop {
        match check().await {
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(STORE_RETRY_DELAY).await;
            }
            // The commit refuses what is damaged, and that attempt alone.
            Err(status) if status.code() == Code::DataLoss => return Ok(None),
            checked => return checked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn check_waits_for_a_store_that_is_away() {
        let failure = || Failure { message: "no".to_owned(), ..Failure::default() };
        let away = || Err(Status::unavailable("the database is away"));
        let mut answers = vec![Ok(Some(failure())), away(), away()];
        let checked = patiently(|| std::future::ready(answers.pop().unwrap())).await;
        assert_eq!((checked.unwrap(), answers.len()), (Some(failure()), 0));
        // The commit refuses it, and the session continues.
        let damaged = patiently(|| std::future::ready(Err(Status::data_loss("damaged")))).await;
        assert_eq!(damaged.unwrap(), None);
        let other = patiently(|| std::future::ready(Err(Status::internal("it panicked")))).await;
        assert_eq!(other.unwrap_err().code(), Code::Internal);
    }
}
