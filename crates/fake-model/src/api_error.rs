//! Error responses in the format of the API: the JSON body, and the error type for each status.

use serde_json::json;

#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        body(kind(self.status), &self.message, request_id).to_string().into_bytes()
    }
}

/// Body of an error response, and data of an `error` event.
pub(crate) fn body(kind: &str, message: &str, request_id: &str) -> serde_json::Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
}

pub(crate) fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

pub(crate) fn default_message(status: u16) -> &'static str {
    match status {
        401 => "invalid x-api-key",
        403 => "Your account does not have permission to use this model.",
        429 => "This request would exceed your rate limit.",
        529 => "Overloaded",
        400..=499 => "Rejected by the fake model's script.",
        _ => "Internal server error",
    }
}
