//! What earlier attempts of a task have left, as the control plane has it. An attempt asks once, when it matters first: where its work
//! begins, its branch and its checkpoint are then of one answer.

use std::sync::Arc;

use backon::Retryable;
use rota_proto::worker::v1::{Assign, FetchCheckpointRequest, FetchCheckpointResponse};
use tokio::sync::Mutex;
use tonic::Status;

use super::handle::AttemptHandle;
use crate::artifacts::{Caller, Retry};
use crate::runtimes::RunOutcome;
use crate::supervise::stopped;

/// Answer of the control plane to an attempt, until its programs start.
#[derive(Debug, Default)]
pub(super) struct Earlier(Mutex<Option<Arc<FetchCheckpointResponse>>>);

impl Earlier {
    /// Returns the answer. Waits for a control plane that is away; errors are not kept.
    pub(super) async fn get(
        &self,
        caller: &Caller,
        assign: &Assign,
    ) -> Result<Arc<FetchCheckpointResponse>, Status> {
        let mut known = self.0.lock().await;
        if let Some(left) = &*known {
            return Ok(Arc::clone(left));
        }
        let left = Arc::new(fetch(caller, assign).await?);
        *known = Some(Arc::clone(&left));
        Ok(left)
    }

    /// Drops the answer, which may be large.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// Returns the answer to an attempt, until a request to stop. `what` begins the message of a failure.
pub(super) async fn ask(
    caller: &Caller,
    handle: &AttemptHandle,
    assign: &Assign,
    what: &str,
) -> Result<Arc<FetchCheckpointResponse>, RunOutcome> {
    let mut stop = handle.stop_signal();
    tokio::select! {
        left = handle.earlier.get(caller, assign) => {
            left.map_err(|status| RunOutcome::Failed(Caller::failure(what, &status)))
        }
        _ = stopped(&mut stop) => Err(RunOutcome::Stopped { by: "interrupt" }),
    }
}

/// Returns the same to an attempt that asks nothing after that, and keeps nothing of it.
pub(super) async fn take(
    caller: &Caller,
    handle: &AttemptHandle,
    assign: &Assign,
    what: &str,
) -> Result<FetchCheckpointResponse, RunOutcome> {
    let left = ask(caller, handle, assign, what).await?;
    handle.earlier.forget().await;
    Ok(Arc::unwrap_or_clone(left))
}

async fn fetch(caller: &Caller, assign: &Assign) -> Result<FetchCheckpointResponse, Status> {
    let request = FetchCheckpointRequest {
        namespace: assign.namespace.clone(),
        worker: caller.worker.clone(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
    };
    let call = || async { caller.service()?.fetch_checkpoint(Caller::request(request.clone())).await };
    Ok(call.retry(Retry::backoff()).when(Retry::decide()).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use rota_client::{Options, RenewableChannel, Token};
    use rota_proto::worker::v1::UndeliveredWork;
    use tokio::sync::mpsc;

    use super::*;
    use crate::session::attempt::AttemptKey;
    use crate::session::outbox::{Bounds, Outbox};

    #[tokio::test]
    async fn answers_that_are_taken_are_not_kept() {
        let channel = RenewableChannel::new(Options::new("http://127.0.0.1:1")).unwrap();
        let caller = Caller { channel, token: Token::None, worker: "w".to_owned() };
        let outbox = Outbox::new(std::env::temp_dir(), Bounds::default());
        let key = AttemptKey { task: "task".into(), fence: 1 };
        let handle = AttemptHandle::new(outbox, key, mpsc::unbounded_channel().0);
        let undelivered = Some(UndeliveredWork::default());
        let left = FetchCheckpointResponse { undelivered, ..FetchCheckpointResponse::default() };
        *handle.earlier.0.lock().await = Some(Arc::new(left.clone()));
        let assign = Assign::default();
        // It was asked before, and is known.
        assert_eq!(*ask(&caller, &handle, &assign, "ask").await.unwrap(), left);
        assert_eq!(take(&caller, &handle, &assign, "ask").await.unwrap(), left);
        assert!(handle.earlier.0.lock().await.is_none());
    }
}
