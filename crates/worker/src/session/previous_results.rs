//! Results of dependencies that an assignment omits, and the lists of their artifacts: fetched one by one before the attempt
//! starts. Those of the steps before the one that the task belongs to, in pages.

use std::time::Duration;

use backon::Retryable;
use prost::Message;
use rota_proto::v1::{Severity, event};
use rota_proto::worker::v1::{
    Assign, FetchPreviousResultRequest, FetchPreviousResultResponse, FetchStepResultsRequest, StepResult,
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
/// Results of steps that an attempt is given.
const STEP_RESULT_LIMITS: StepResultLimits = StepResultLimits { count: 10_000, bytes: 32 << 20 };

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

/// What is left of the limits of the results of steps.
#[derive(Debug, Clone, Copy)]
struct StepResultLimits {
    count: usize,
    bytes: usize,
}

impl StepResultLimits {
    /// Adds results to what an attempt is given. One that exceeds the bytes is left out, which its entry shows; the entries beyond the count
    /// are dropped. Returns whether more may follow.
    fn add(&mut self, results: Vec<StepResult>, given: &mut Given) -> bool {
        for mut one in results {
            let Some(count) = self.count.checked_sub(1) else { return false };
            self.count = count;
            match self.bytes.checked_sub(one.result.as_ref().map_or(0, Message::encoded_len)) {
                Some(rest) => self.bytes = rest,
                None => (one.result, one.omitted) = (None, true),
            }
            given.add_step(one);
        }
        true
    }
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
    let mut limits = STEP_RESULT_LIMITS;
    loop {
        let call = || async {
            let answer = caller.service()?.fetch_step_results(Caller::request(request.clone())).await;
            answer.map(tonic::Response::into_inner)
        };
        let report = |status: &Status, delay| retries.report(status, delay);
        let answer = call.retry(Retry::backoff()).when(Retry::decide()).notify(report).await?;
        retries.over();
        if !limits.add(answer.results, given) || answer.next_page_token.is_empty() {
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

#[cfg(test)]
mod tests {
    use rota_proto::v1::TaskResult;

    use super::*;

    fn result(text: &str) -> StepResult {
        let result = Some(TaskResult { text: text.to_owned(), ..Default::default() });
        StepResult { step: text.to_owned(), result, ..Default::default() }
    }

    #[test]
    fn step_results_beyond_the_limits_are_left_out() {
        let bytes = |text| result(text).result.map_or(0, |result| result.encoded_len());
        let mut limits = StepResultLimits { count: 4, bytes: bytes("first") + bytes("last") };
        let mut given = Given::default();
        assert!(limits.add(vec![result("first"), result("too large")], &mut given));
        // One that is small enough follows one that is not.
        assert!(!limits.add(["last", "more", "dropped"].map(result).into(), &mut given));
        let steps = given.steps.iter().map(|one| (one.step.as_str(), one.result.is_some(), one.omitted));
        let expected = [
            ("first", true, false),
            ("too large", false, true),
            ("last", true, false),
            ("more", false, true),
        ];
        assert_eq!(steps.collect::<Vec<_>>(), expected);
    }
}
