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
    result: worker::Result,
) -> Result<worker::Result, Status> {
    let namespace = &opened.key.0;
    let mut result = branches::checked(&deps.store, namespace, id, result).await?;
    let attempt = (namespace.clone(), id, fence);
    // Boxed: sessions hold this future while they are idle.
    if !deps.dispatcher.result_schemas.take_plain(&attempt)
        && let Some(failure) = Box::pin(mismatch(deps, &attempt, &result)).await?
    {
        (result.kind, result.undelivered) = (Some(Kind::Failed(failure)), None);
    }
    Ok(result)
}

/// Returns the failure of data that does not fit. Waits for a store that is away: the session stays up, and with it the worker's attempts.
async fn mismatch(
    deps: &SessionDeps,
    attempt: &Attempt,
    result: &worker::Result,
) -> Result<Option<Failure>, Status> {
    loop {
        match deps.dispatcher.result_schemas.mismatch(&deps.store, attempt, result).await {
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(STORE_RETRY_DELAY).await;
            }
            // The commit refuses what is damaged, and that attempt alone.
            Err(status) if status.code() == Code::DataLoss => return Ok(None),
            checked => return checked,
        }
    }
}
