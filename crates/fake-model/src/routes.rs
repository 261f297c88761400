//! Which path is answered by what. The messages themselves are in `messages`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api_error::ApiError;
use crate::attempts::Attempts;
use crate::plan::Plan;
use crate::reply::estimate;
use crate::stats::{self, RequestRecord, Route, Stats};
use crate::{messages, play};

/// What every handler may use.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) stats: Arc<Stats>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn router(app: App, max_body: usize) -> Router {
    Router::new()
        .route("/v1/messages", post(messages::handle))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1/models", get(models))
        .route("/api/hello", get(hello))
        .route("/debug/requests", get(debug))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(app)
}

/// A record with what the headers tell.
pub(crate) fn record(route: Route, headers: &HeaderMap) -> RequestRecord {
    RequestRecord {
        route,
        status: 200,
        auth: stats::auth(headers),
        headers: stats::kept_headers(headers),
        ..RequestRecord::default()
    }
}

pub(crate) fn request_id() -> String {
    format!("req_{}", Uuid::new_v4().simple())
}

/// Answers with an error, and records it.
pub(crate) async fn reject(app: App, error: ApiError, mut record: RequestRecord) -> Response {
    let id = request_id();
    let mut plan = Plan::error(&error, &id);
    // What is wrong with a request will be wrong with the next one too.
    plan.headers.push(("x-should-retry", "false".to_owned()));
    (record.status, record.outcome) = (plan.status, plan.outcome);
    app.stats.record(record);
    play::play(plan, &id, app.stop, None).await
}

pub(crate) fn too_large(rejection: &BytesRejection) -> ApiError {
    ApiError::new(rejection.status().as_u16(), rejection.body_text())
}

async fn count_tokens(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let record = record(Route::CountTokens, &headers);
    match body {
        Ok(body) => {
            app.stats.record(record);
            Json(json!({"input_tokens": estimate(body.len())})).into_response()
        }
        Err(rejection) => reject(app, too_large(&rejection), record).await,
    }
}

async fn models(State(app): State<App>, headers: HeaderMap) -> Response {
    app.stats.record(record(Route::Models, &headers));
    Json(json!({"data": [], "has_more": false, "first_id": null, "last_id": null})).into_response()
}

async fn hello(State(app): State<App>, headers: HeaderMap) -> Response {
    app.stats.record(record(Route::Hello, &headers));
    Json(json!({"message": "hello"})).into_response()
}

async fn debug(State(app): State<App>) -> Response {
    Json(json!({"counts": app.stats.counts(), "requests": app.stats.requests()})).into_response()
}

async fn unknown(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    let error = ApiError::new(404, format!("the fake model does not know {}", uri.path()));
    reject(app, error, record(Route::Other, &headers)).await
}
