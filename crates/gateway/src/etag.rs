//! Etags of records as headers (RFC 9110): of responses, and of requests that depend on them.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Empty;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use tonic::body::Body;

use crate::status::invalid;

/// Field of a record that has its etag, and of requests that change it.
const FIELD: &str = "etag";
const TASK: &str = "rota.v1.Task";

/// Whether messages of a type have an etag.
pub(crate) fn has(message: &MessageDescriptor) -> bool {
    message.get_field_by_name(FIELD).is_some()
}

/// Whether the etag of a record is of all that readers wait for. That of a task is of what callers change: a reader with the same one
/// would miss its end.
pub(crate) fn is_of_all(message: &MessageDescriptor) -> bool {
    has(message) && message.full_name() != TASK
}

/// Returns the etag of a record, as a header.
pub(crate) fn of(message: &DynamicMessage) -> Option<HeaderValue> {
    let value = message.get_field_by_name(FIELD)?;
    let etag = value.as_str().filter(|etag| !etag.is_empty())?;
    HeaderValue::from_str(&format!("\"{etag}\"")).ok()
}

/// Returns the etag on which a change depends. A list of them is refused, as are calls that would not check it.
pub(crate) fn wanted(
    headers: &HeaderMap,
    method: &Method,
    input: &MessageDescriptor,
) -> Result<Option<String>, Box<Status>> {
    let Some(value) = headers.get(header::IF_MATCH).filter(|_| !method.is_safe()) else { return Ok(None) };
    if !has(input) {
        return Err(invalid("the call takes no If-Match", "leave the header away"));
    }
    let text = value.to_str().unwrap_or_default().trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match quoted.filter(|etag| !etag.is_empty() && !etag.contains('"')) {
        Some(etag) => Ok(Some(etag.to_owned())),
        None if text == "*" => Ok(Some(text.to_owned())),
        None => Err(invalid(
            "the header If-Match is not one etag in quotes",
            "send the header ETag of the record",
        )),
    }
}

/// Returns what replaces the response to a read whose caller has the record already.
pub(crate) fn not_modified(
    known: Option<&HeaderValue>,
    etag: Option<&HeaderValue>,
) -> Option<Response<Body>> {
    let (known, etag) = (known?.to_str().ok()?, etag?.to_str().ok()?);
    // A weak comparison, as reads have: nothing depends on the bytes of the JSON.
    let is_same = |one: &str| one == "*" || one.trim_start_matches("W/") == etag;
    known.split(',').map(str::trim).any(is_same).then(|| {
        let mut response = Response::new(Body::new(Empty::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_request(value: &str, method: &Method, input: &str) -> Result<Option<String>, Box<Status>> {
        let headers = [(header::IF_MATCH, value.parse().unwrap())].into_iter().collect();
        wanted(&headers, method, &crate::pool().unwrap().get_message_by_name(input).unwrap())
    }

    #[test]
    fn changes_depend_on_one_etag() {
        let update = |value| of_request(value, &Method::PATCH, "rota.v1.UpdateAgentRequest");
        assert_eq!(update("\"a-1\"").unwrap().as_deref(), Some("a-1"));
        assert_eq!(update("*").unwrap().as_deref(), Some("*"));
        for other in ["a-1", "\"a\", \"b\"", "W/\"a-1\"", "\"\"", ""] {
            assert!(update(other).is_err(), "{other:?}");
        }
        // It must not be taken for checked.
        assert!(of_request("\"a-1\"", &Method::POST, "rota.v1.CancelTaskRequest").is_err());
        assert_eq!(of_request("\"a-1\"", &Method::GET, "rota.v1.GetAgentRequest").unwrap(), None);
    }

    #[test]
    fn reads_compare_any_of_a_list() {
        let is_same = |known: &str| {
            let known = known.parse().unwrap();
            not_modified(Some(&known), Some(&HeaderValue::from_static("\"a-1\""))).is_some()
        };
        assert!(is_same("\"a-1\"") && is_same("\"b\", W/\"a-1\"") && is_same("*"));
        assert!(!is_same("\"a-2\"") && !is_same("a-1") && !is_same(""));
        assert!(not_modified(Some(&HeaderValue::from_static("*")), None).is_none());
    }
}
