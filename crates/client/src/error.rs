//! Errors of calls: a status unpacked into message, reason, fields and a hint for the user.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;

use rota_proto::reasons::UPLOAD_BYTES;
use rota_telemetry::root_cause;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Failed call. `Display` prints the message only.
#[derive(Debug, Clone)]
pub struct Error {
    /// gRPC status code.
    pub code: Code,
    /// What failed, and why.
    pub message: String,
    /// Stable reason of the API, such as `TASK_NOT_FOUND`, if the server sent one.
    pub reason: Option<String>,
    /// Fields of the request that are invalid, or that the failed precondition is about.
    pub fields: Vec<Field>,
    /// What the user can do about it, if known.
    pub hint: Option<String>,
    /// Bytes of an upload for which the artifacts of the namespace have no room, if that is the reason.
    pub upload_bytes: Option<u64>,
    /// Whether no server answered: connecting failed, or the connection was lost before the response.
    pub lost: bool,
}

/// A field that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Path such as `task.spec.prompt`.
    pub field: String,
    /// Why the field is invalid.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A status with what [`reason`], [`hint_of`] and [`upload_bytes`] find in one of the server. Hints of this crate are for users of the CLI.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let hint = error.hint.filter(|_| error.reason.is_some()).map(|hint| ("hint".to_owned(), hint));
        let upload = error.upload_bytes.map(|bytes| (UPLOAD_BYTES.to_owned(), bytes.to_string()));
        let metadata: HashMap<_, _> = hint.into_iter().chain(upload).collect();
        let details = ErrorDetails::with_error_info(error.reason.unwrap_or_default(), DOMAIN, metadata);
        Self::with_error_details(error.code, error.message, details)
    }
}

/// Whether a status was created by the transport instead of the server: connecting failed, or the connection broke. A
/// status from the server has no source. A connection on which many streams were abandoned ends as exhausted.
pub(crate) fn is_lost(status: &Status) -> bool {
    status.source().is_some()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::ResourceExhausted
        )
}

/// Domain of the reasons of the control plane.
const DOMAIN: &str = "rota.dev";

/// Returns the stable reason that the server attached to a status, if any.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_error_details().error_info().cloned()?;
    // A proxy in between may attach details of its own.
    Some(info.reason).filter(|reason| info.domain == DOMAIN && !reason.is_empty())
}

/// Returns the hint for users that the server attached to a status, if any.
pub fn hint_of(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let of_info = details.error_info().and_then(|info| info.metadata.get("hint").cloned());
    let of_help = || details.help().and_then(|help| help.links.first()).map(|link| link.description.clone());
    of_info.or_else(of_help).filter(|hint| !hint.is_empty())
}

/// Returns the bytes of an upload for which the artifacts of the namespace have no room, if that is why a call failed.
pub fn upload_bytes(status: &Status) -> Option<u64> {
    let info = status.get_error_details().error_info().cloned()?;
    info.metadata.get(UPLOAD_BYTES)?.parse().ok()
}

impl Error {
    pub(crate) fn new(status: Status, endpoint: &str) -> Self {
        let details = status.get_error_details();
        let mut fields: Vec<_> = details
            .bad_request()
            .iter()
            .flat_map(|bad| &bad.field_violations)
            .map(|violation| Field { field: violation.field.clone(), message: violation.description.clone() })
            .collect();
        fields.extend(details.precondition_failure().iter().flat_map(|failure| &failure.violations).map(
            |violation| Field { field: violation.subject.clone(), message: violation.description.clone() },
        ));
        let lost = is_lost(&status);
        let message = message(&status, endpoint, lost);
        Self {
            code: status.code(),
            reason: reason(&status),
            upload_bytes: upload_bytes(&status),
            fields,
            hint: hint_of(&status).or_else(|| hint(status.code(), lost, &message).map(str::to_owned)),
            message,
            lost,
        }
    }

    /// Creates the error for an invalid endpoint.
    pub(crate) fn endpoint(endpoint: &str, reason: impl fmt::Display) -> Self {
        Self {
            code: Code::InvalidArgument,
            message: format!("invalid endpoint {endpoint:?}: {reason}"),
            reason: None,
            upload_bytes: None,
            fields: Vec::new(),
            hint: Some("an endpoint looks like http://127.0.0.1:7420 or https://rota.example:443".into()),
            lost: false,
        }
    }

    /// Returns whether a later call may succeed.
    pub fn is_temporary(&self) -> bool {
        self.lost || self.code == Code::Unavailable
    }
}

impl From<rota_proto::v1::BatchError> for Error {
    fn from(error: rota_proto::v1::BatchError) -> Self {
        let field = Field { field: error.field, message: error.message.clone() };
        Self {
            code: Code::from_i32(error.code),
            message: error.message,
            reason: None,
            upload_bytes: None,
            fields: Some(field).filter(|field| !field.field.is_empty()).into_iter().collect(),
            hint: Some(error.hint).filter(|hint| !hint.is_empty()),
            lost: false,
        }
    }
}

fn message(status: &Status, endpoint: &str, lost: bool) -> String {
    match status.source() {
        Some(source) if lost => {
            format!("cannot reach the control plane at {endpoint}: {}", root_cause(source))
        }
        _ if status.message().is_empty() => status.code().description().to_owned(),
        _ => status.message().to_owned(),
    }
}

fn hint(code: Code, lost: bool, message: &str) -> Option<&'static str> {
    match code {
        _ if lost && message.contains("invalid peer certificate") => {
            Some("name the authority that has signed the server's certificate with --ca or ROTA_CA")
        }
        _ if lost => {
            Some("start a local one with `rota dev`, or name another with --endpoint or ROTA_ENDPOINT")
        }
        Code::Unauthenticated => Some(
            "set a token with --token-file, ROTA_TOKEN or ROTA_TOKEN_FILE; `rota dev` prints the path of its own",
        ),
        Code::Unimplemented => Some("the server may be older or newer than this program; see `rota version`"),
        Code::DeadlineExceeded => Some("the server did not respond in time and may be overloaded"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_details_are_unpacked() {
        let mut details = ErrorDetails::with_bad_request_violation("task.spec.prompt", "is empty");
        details.set_error_info(
            "FIELD_DIFFERS",
            "rota.dev",
            [("hint", "change the name"), (UPLOAD_BYTES, "7")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let error = Error::new(status, "http://x");
        assert_eq!(error.to_string(), "no");
        assert_eq!(error.reason.as_deref(), Some("FIELD_DIFFERS"));
        assert_eq!(error.hint.as_deref(), Some("change the name"));
        assert_eq!(error.fields, [Field { field: "task.spec.prompt".into(), message: "is empty".into() }]);
        assert!(!error.lost);
        let again = Status::from(error);
        assert_eq!((again.code(), again.message()), (Code::InvalidArgument, "no"));
        assert_eq!(reason(&again).as_deref(), Some("FIELD_DIFFERS"));
        assert_eq!(hint_of(&again).as_deref(), Some("change the name"));
        assert_eq!(upload_bytes(&again), Some(7));
        let lost = Error { lost: true, ..Error::new(Status::unauthenticated("no"), "http://x") };
        assert_eq!(hint_of(&lost.into()), None);
    }

    #[test]
    fn exhausted_connection_is_lost() {
        let mut status = Status::resource_exhausted("h2 protocol error");
        assert!(!is_lost(&status), "the answer of a server");
        status.set_source(std::sync::Arc::new(std::io::Error::other("enhance your calm")));
        assert!(is_lost(&status));
    }

    #[test]
    fn hint_of_a_rejected_certificate_names_the_option() {
        let mut status = Status::unavailable("transport error");
        status.set_source(std::sync::Arc::new(std::io::Error::other(
            "invalid peer certificate: UnknownIssuer",
        )));
        let hint = Error::new(status, "https://x").hint;
        assert!(hint.as_deref().is_some_and(|hint| hint.contains("--ca")), "{hint:?}");
    }

    #[test]
    fn status_from_server_is_not_lost_connection() {
        let error = Error::new(Status::unavailable("draining"), "http://x");
        assert!(!error.lost);
        assert!(error.is_temporary());
        assert_eq!(error.to_string(), "draining");
        assert!(!Error::new(Status::not_found("x"), "http://x").is_temporary());
    }
}
