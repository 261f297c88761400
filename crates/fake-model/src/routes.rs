//! Routes, and the handlers of all but `POST /v1/messages`.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::api_error::ApiError;
use crate::app::{App, record, reject, too_large};
use crate::messages;
use crate::reply::estimate;
use crate::stats::Route;

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
    let error = ApiError::new(404, format!("unknown path {}", uri.path()));
    reject(app, error, record(Route::Other, &headers)).await
}
