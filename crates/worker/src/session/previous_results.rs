//! Results of dependencies that an assignment omits, and the lists of their artifacts: fetched one by one before the attempt
//! starts.

use backon::Retryable;
use rota_proto::v1::{FailureClass, Severity, event};
use rota_proto::worker::v1::{Assign, FetchPreviousResultRequest, FetchPreviousResultResponse};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::handle::AttemptHandle;
use crate::artifacts::{Caller, Given, Retry};
use crate::runtimes::{RunOutcome, failure, notice};

/// Completes an assignment, and returns what it is given. Waits for a control plane that is away, until a request to stop.
pub(super) async fn complete(
    caller: &Caller,
    assign: &mut Assign,
    handle: &AttemptHandle,
    events: &mpsc::Sender<event::Kind>,
) -> Result<Given, RunOutcome> {
    let mut given = Given::input(assign);
    if assign.previous.iter().all(|previous| !previous.omitted && !previous.has_artifacts) {
        return Ok(given);
    }
    let mut stop = handle.stop_signal();
    let fetched = tokio::select! {
        fetched = fetch_all(caller, assign, &mut given, handle, events) => fetched.map_err(|status| {
            let class = match status.code() {
                // No worker and no further attempt will get it.
                Code::NotFound | Code::DataLoss => FailureClass::Invalid,
                _ => FailureClass::Environment,
            };
            RunOutcome::Failed(failure(class, describe(&status)))
        }),
        _ = stop.wait_for(Option::is_some) => Err(RunOutcome::Stopped { by: "interrupt" }),
    };
    fetched.map(|()| given)
}

async fn fetch_all(
    caller: &Caller,
    assign: &mut Assign,
    given: &mut Given,
    handle: &AttemptHandle,
    events: &mpsc::Sender<event::Kind>,
) -> Result<(), Status> {
    let (namespace, task_id, fence) = (assign.namespace.clone(), assign.task_id.clone(), assign.fence);
    let mut noticed = false;
    let wanted = assign.previous.iter_mut().filter(|previous| previous.omitted || previous.has_artifacts);
    for previous in wanted {
        let request = FetchPreviousResultRequest {
            namespace: namespace.clone(),
            worker: caller.worker.clone(),
            task_id: task_id.clone(),
            fence,
            previous_task_id: previous.task_id.clone(),
        };
        let report = |status: &Status, delay| {
            handle.lock().obstacle = Some(describe(status));
            if !std::mem::replace(&mut noticed, true) {
                let dependency = &request.previous_task_id;
                tracing::warn!(task = task_id, dependency, %status, retry_delay = ?delay, "failed to fetch a dependency's result, retrying");
                let text = format!("{}; retrying", describe(status));
                // A full channel has events that show as well that the attempt is alive.
                let _ = events.try_send(notice(Severity::Medium, "previous_result_retry", text));
            }
        };
        let call = || fetch(caller, request.clone());
        let answer = call.retry(Retry::backoff()).when(Retry::decide()).notify(report).await?;
        if previous.omitted {
            let absent = || Status::data_loss("the control plane's answer has no result");
            previous.result = Some(answer.result.ok_or_else(absent)?);
            previous.omitted = false;
        }
        if let Some(list) = answer.artifacts {
            given.add(previous, list);
        }
        handle.lock().obstacle = None;
    }
    Ok(())
}

async fn fetch(
    caller: &Caller,
    request: FetchPreviousResultRequest,
) -> Result<FetchPreviousResultResponse, Status> {
    let answer = caller.service()?.fetch_previous_result(Caller::request(request)).await;
    answer.map(tonic::Response::into_inner)
}

fn describe(status: &Status) -> String {
    format!("failed to fetch the result of a dependency: {} ({:?})", status.message(), status.code())
}
