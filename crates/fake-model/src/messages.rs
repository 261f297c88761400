//! `POST /v1/messages`: from the request's bytes to a plan. Combines `conversation`, `script` and `plan`, and records
//! the outcome.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::api_error::ApiError;
use crate::app::{App, record, reject, request_id, too_large};
use crate::attempts::StepKey;
use crate::conversation::Conversation;
use crate::plan::{Plan, ReplyTarget};
use crate::playback;
use crate::reply::{Reply, estimate};
use crate::request::Request;
use crate::stats::{self, RequestRecord, Route};

const MAX_MODEL_CHARS: usize = 128;

pub(crate) async fn handle(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let mut record = record(Route::Messages, &headers);
    let size = body.as_ref().map_or(0, Bytes::len);
    let request = body.map_err(|rejection| too_large(&rejection)).and_then(|body| read(&body, &mut record));
    let request = match request {
        Ok(request) => request,
        Err(error) => return reject(app, error, record).await,
    };
    if let Err(error) = app.refusals.check(&headers) {
        return reject(app, error, record).await;
    }
    let Some(active) = app.stats.begin() else {
        return reject(app, ApiError::new(529, "too many concurrent answers"), record).await;
    };
    let id = request_id();
    let plan = match plan(&app, &request, &id, size, &mut record) {
        Ok(plan) => plan,
        Err(error) => return reject(app, error, record).await,
    };
    drop(request);
    (record.status, record.outcome) = (plan.status, plan.outcome);
    app.stats.record(record);
    playback::play(plan, &id, app.stop, Some(active)).await
}

fn read(body: &[u8], record: &mut RequestRecord) -> Result<Request, ApiError> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|error| ApiError::new(400, format!("invalid request: {error}")))?;
    record.model = request.model.chars().take(MAX_MODEL_CHARS).collect();
    record.stream = request.stream;
    record.effort = request.output_config.effort.chars().take(MAX_MODEL_CHARS).collect();
    record.marks = stats::marks(body);
    record.messages = request.messages.len();
    record.tools = request.tools.len();
    if request.messages.is_empty() {
        return Err(ApiError::new(400, "messages: at least one message is required"));
    }
    Ok(request)
}

fn unix_time() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "clients compare the end of a limit with their own clock")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn plan(
    app: &App,
    request: &Request,
    id: &str,
    size: usize,
    record: &mut RequestRecord,
) -> Result<Plan, ApiError> {
    let conversation =
        Conversation::read(&request.messages).map_err(|error| ApiError::new(400, error.to_string()))?;
    record.turns = conversation.turns;
    let to = ReplyTarget { request_id: id, stream: request.stream, now: unix_time() };
    let running = conversation.running.as_ref();
    let Some((running, step)) =
        running.and_then(|running| Some((running, running.script.steps.get(running.next)?)))
    else {
        return Ok(Plan::answer(&Reply::summary(&conversation, &request.model, estimate(size)), to));
    };
    record.step = Some(running.next);
    let mut fault = None;
    if !step.fail.is_empty() {
        let session = record.header("x-claude-code-session-id").unwrap_or_default();
        record.attempt = app.attempts.next(StepKey::new(session, running.text, conversation.turns));
        fault = step.fault(record.attempt);
    }
    let reply = Reply::of_step(step, &conversation, &request.model, estimate(size));
    Ok(Plan::scripted(step, fault.map(|fault| &fault.kind), &reply, to))
}
