//! Results of dependencies that an assignment omits, and the lists of their artifacts: fetched one by one before the attempt
//! starts. Those of the steps before the one that the task belongs to, in pages.

use std::time::Duration;

use backon::Retryable;
use prost::Message;
use rota_proto::v1::{Severity, event};
use rota_proto::worker::v1::{
    Assign, FetchPreviousResultRequest, FetchPreviousResultResponse, FetchStepResultsRequest,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::attempt::needs_directories;
use super::handle::AttemptHandle;
use super::undelivered::delivers;
use crate::artifacts::{Caller, Given, Retry};
use crate::report::notice;
use crate::runtimes::RunOutcome;

const WHAT: &str = "failed to fetch earlier results";
/// Bytes of the results of steps that an attempt is given. Those beyond are left out.
const MAX_STEP_RESULTS: usize = 32 << 20;
/// Number of results of steps that an attempt is given.
const MAX_STEP_RESULT_COUNT: usize = 10_000;

/// Completes an assignment, and returns what it is given. Waits for a control plane that is away, until a request to stop.
pub(super) async fn complete(
    caller: &Caller,
    assign: &mut Assign,
    handle: &AttemptHandle,
    events: &mpsc::Sender<event::Kind>,
) -> Result<Given, RunOutcome> {
    let mut given = Given::input(assign);
    if delivers(assign) {
        return Ok(given);
    }
    let of_steps = assign.has_step_results && needs_directories(assign);
    if !of_steps && assign.previous.iter().all(|previous| !previous.omitted && !previous.has_artifacts) {
        return Ok(given);
    }
    let mut stop = handle.stop_signal();
    let fetch = async {
        let task = assign.task_id.clone();
        let mut retries = Retries { task: &task, handle, events, noticed: false };
        fetch_all(caller, assign, &mut given, &mut retries).await?;
        match of_steps {
            true => fetch_steps(caller, assign, &mut given, &mut retries).await,
            false => Ok(()),
        }
    };
    let fetched = tokio::select! {
        fetched = fetch => fetched.map_err(|status| RunOutcome::Failed(Caller::failure(WHAT, &status))),
        _ = stop.wait_for(Option::is_some) => Err(RunOutcome::Stopped { by: "interrupt" }),
    };
    fetched.map(|()| given)
}

/// Reports of calls that are repeated.
struct Retries<'a> {
    task: &'a str,
    handle: &'a AttemptHandle,
    events: &'a mpsc::Sender<event::Kind>,
    noticed: bool,
}

impl Retries<'_> {
    fn report(&mut self, status: &Status, delay: Duration) {
        let failed = Caller::failure(WHAT, status);
        let text = format!("{}; retrying", failed.message);
        self.handle.lock().obstacle = Some(failed);
        if !std::mem::replace(&mut self.noticed, true) {
            tracing::warn!(task = self.task, %status, retry_delay = ?delay, "failed to fetch earlier results, retrying");
            // A full channel has events that show as well that the attempt is alive.
            let _ = self.events.try_send(notice(Severity::Medium, "previous_result_retry", text));
        }
    }

    fn over(&self) {
        self.handle.lock().obstacle = None;
    }
}

async fn fetch_all(
    caller: &Caller,
    assign: &mut Assign,
    given: &mut Given,
    retries: &mut Retries<'_>,
) -> Result<(), Status> {
    let (namespace, task_id, fence) = (assign.namespace.clone(), assign.task_id.clone(), assign.fence);
    let wanted = assign.previous.iter_mut().filter(|previous| previous.omitted || previous.has_artifacts);
    for previous in wanted {
        let request = FetchPreviousResultRequest {
            namespace: namespace.clone(),
            worker: caller.worker.clone(),
            task_id: task_id.clone(),
            fence,
            previous_task_id: previous.task_id.clone(),
        };
        let call = || fetch(caller, request.clone());
        let report = |status: &Status, delay| retries.report(status, delay);
        let answer = call.retry(Retry::backoff()).when(Retry::decide()).notify(report).await?;
        if previous.omitted {
            let absent = || Status::data_loss("the control plane's answer has no result");
            previous.result = Some(answer.result.ok_or_else(absent)?);
            previous.omitted = false;
        }
        if let Some(list) = answer.artifacts {
            given.add(previous, list);
        }
        retries.over();
    }
    Ok(())
}

/// Fetches the results of the steps that the step of the task needs.
async fn fetch_steps(
    caller: &Caller,
    assign: &Assign,
    given: &mut Given,
    retries: &mut Retries<'_>,
) -> Result<(), Status> {
    let mut request = FetchStepResultsRequest {
        namespace: assign.namespace.clone(),
        worker: caller.worker.clone(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        page_token: String::new(),
    };
    let mut left = MAX_STEP_RESULTS;
    loop {
        let call = || async {
            let answer = caller.service()?.fetch_step_results(Caller::request(request.clone())).await;
            answer.map(tonic::Response::into_inner)
        };
        let report = |status: &Status, delay| retries.report(status, delay);
        let answer = call.retry(Retry::backoff()).when(Retry::decide()).notify(report).await?;
        retries.over();
        for mut one in answer.results {
            if given.steps.len() >= MAX_STEP_RESULT_COUNT {
                return Ok(());
            }
            match left.checked_sub(one.result.as_ref().map_or(0, Message::encoded_len)) {
                Some(rest) => left = rest,
                None => (one.result, one.omitted) = (None, true),
            }
            given.add_step(one);
        }
        if answer.next_page_token.is_empty() {
            return Ok(());
        }
        if answer.next_page_token == request.page_token {
            return Err(Status::data_loss("the control plane's answer repeats a page"));
        }
        request.page_token = answer.next_page_token;
    }
}

async fn fetch(
    caller: &Caller,
    request: FetchPreviousResultRequest,
) -> Result<FetchPreviousResultResponse, Status> {
    let answer = caller.service()?.fetch_previous_result(Caller::request(request)).await;
    answer.map(tonic::Response::into_inner)
}
