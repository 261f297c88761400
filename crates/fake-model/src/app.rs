//! State shared by all handlers, and what every handler does with it: record a request, reject it.
//! Knows nothing of paths.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api_error::ApiError;
use crate::attempts::Attempts;
use crate::plan::Plan;
use crate::playback;
use crate::refusal::Refusals;
use crate::stats::{self, RequestRecord, Route, Stats};

/// State of the server that every handler has.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) stats: Arc<Stats>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) stop: CancellationToken,
}

/// Creates the record of a request from its headers.
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

/// Responds with an error and records it.
pub(crate) async fn reject(app: App, error: ApiError, mut record: RequestRecord) -> Response {
    let id = request_id();
    let mut plan = Plan::error(&error, &id);
    // The same request would be rejected again.
    plan.headers.push(("x-should-retry", "false".to_owned()));
    (record.status, record.outcome) = (plan.status, plan.outcome);
    app.stats.record(record);
    playback::play(plan, &id, app.stop, None).await
}

pub(crate) fn too_large(rejection: &BytesRejection) -> ApiError {
    ApiError::new(rejection.status().as_u16(), rejection.body_text())
}
