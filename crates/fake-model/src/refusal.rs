//! Refusal of credentials, which a test turns on and off: of a key that is rejected or limited, whatever the script of a request. Knows only
//! the key that the test itself has named.

use axum::http::HeaderMap;
use parking_lot::Mutex;

use crate::api_error::{ApiError, default_message};

/// What requests for messages get instead of an answer.
#[derive(Clone, Default)]
pub struct Refusal {
    /// Status of the answer, such as 401 or 429.
    pub status: u16,
    /// Key with which requests are answered all the same.
    pub except: Option<String>,
}

/// Does not print the key.
impl std::fmt::Debug for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusal").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The refusal that holds now.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Option<Refusal>>);

impl Refusals {
    pub(crate) fn set(&self, refusal: Option<Refusal>) {
        *self.0.lock() = refusal;
    }

    /// Returns the error for a request that is refused.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let refusal = self.0.lock();
        let Some(Refusal { status, except }) = &*refusal else { return Ok(()) };
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let is_excepted = |key: &String| [header("x-api-key"), bearer].contains(&Some(key.as_str()));
        match except.as_ref().is_some_and(is_excepted) {
            true => Ok(()),
            false => Err(ApiError::new(*status, default_message(*status))),
        }
    }
}
