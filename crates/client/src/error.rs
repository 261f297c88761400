//! What went wrong, said for people: a sentence, the fields concerned, and what to do.

use std::error::Error as _;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What went wrong.
#[derive(Debug, Clone)]
pub struct Error {
    /// The gRPC status code.
    pub code: Code,
    /// A sentence.
    pub message: String,
    /// A word for programs, where the server gave one.
    pub reason: Option<String>,
    /// The fields concerned.
    pub fields: Vec<Field>,
    /// What to do, where that is known.
    pub hint: Option<String>,
    /// No server answered: the connection failed, or was lost before the answer.
    pub lost: bool,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// For example `task.spec.prompt`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A status made on this side, not sent by the server: the connection failed or broke.
/// What a server sends has no source.
pub(crate) fn is_lost(status: &Status) -> bool {
    status.source().is_some()
        && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

/// The server's word for programs, where it gave one.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_error_details().error_info().cloned()?;
    Some(info.reason).filter(|reason| !reason.is_empty())
}

impl Error {
    pub(crate) fn new(status: Status, endpoint: &str) -> Self {
        let details = status.get_error_details();
        let mut fields: Vec<_> = details
            .bad_request()
            .iter()
            .flat_map(|bad| &bad.field_violations)
            .map(|one| Field { field: one.field.clone(), message: one.description.clone() })
            .collect();
        fields.extend(
            details
                .precondition_failure()
                .iter()
                .flat_map(|failure| &failure.violations)
                .map(|one| Field { field: one.subject.clone(), message: one.description.clone() }),
        );
        let info = details.error_info();
        let lost = is_lost(&status);
        let told = info
            .and_then(|info| info.metadata.get("hint").cloned())
            .or_else(|| {
                details.help().and_then(|help| help.links.first()).map(|link| link.description.clone())
            })
            .filter(|hint| !hint.is_empty());
        Self {
            code: status.code(),
            message: message(&status, endpoint, lost),
            reason: reason(&status),
            fields,
            hint: told.or_else(|| hint(status.code(), lost).map(str::to_owned)),
            lost,
        }
    }

    /// The endpoint's text is none.
    pub(crate) fn endpoint(endpoint: &str, why: impl fmt::Display) -> Self {
        Self {
            code: Code::InvalidArgument,
            message: format!("{endpoint:?} cannot be used as an endpoint: {why}"),
            reason: None,
            fields: Vec::new(),
            hint: Some("an endpoint looks like http://127.0.0.1:7420 or https://rota.example:443".into()),
            lost: false,
        }
    }

    /// Whether trying again may help.
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
            fields: Some(field).filter(|one| !one.field.is_empty()).into_iter().collect(),
            hint: None,
            lost: false,
        }
    }
}

fn message(status: &Status, endpoint: &str, lost: bool) -> String {
    match status.source() {
        Some(source) if lost => format!("cannot reach the control plane at {endpoint}: {}", root(source)),
        _ if status.message().is_empty() => status.code().description().to_owned(),
        _ => status.message().to_owned(),
    }
}

/// The innermost cause: the outer ones say `transport error` and the like.
pub(crate) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn hint(code: Code, lost: bool) -> Option<&'static str> {
    match code {
        _ if lost => {
            Some("start a local one with `rota dev`, or name another with --endpoint or ROTA_ENDPOINT")
        }
        Code::Unauthenticated => Some(
            "give a token with --token-file, ROTA_TOKEN or ROTA_TOKEN_FILE; `rota dev` prints where its own is",
        ),
        Code::Unimplemented => Some("the server may be older or newer than this program; see `rota version`"),
        Code::DeadlineExceeded => Some("the server did not answer in time; it may be overloaded"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    #[test]
    fn details_are_unpacked() {
        let mut details = ErrorDetails::with_bad_request_violation("task.spec.prompt", "is empty");
        details.set_error_info(
            "FIELD_DIFFERS",
            "rota.dev",
            [("hint".to_owned(), "change the name".to_owned())],
        );
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let error = Error::new(status, "http://x");
        assert_eq!(error.to_string(), "no");
        assert_eq!(error.reason.as_deref(), Some("FIELD_DIFFERS"));
        assert_eq!(error.hint.as_deref(), Some("change the name"));
        assert_eq!(error.fields, [Field { field: "task.spec.prompt".into(), message: "is empty".into() }]);
        assert!(!error.lost);
    }

    #[test]
    fn what_the_server_says_is_not_a_lost_connection() {
        let error = Error::new(Status::unavailable("draining"), "http://x");
        assert!(!error.lost && error.is_temporary());
        assert_eq!(error.to_string(), "draining");
        assert!(!Error::new(Status::not_found("x"), "http://x").is_temporary());
    }
}
