//! Failures and notices with the usual fields, for every module that reports any. Knows nothing of where they go.

use rota_proto::limits::usual_severity;
use rota_proto::v1::{Failure, FailureClass, Notice, Severity, event};

/// Creates a failure with the usual severity of its class.
pub(crate) fn failure(class: FailureClass, message: impl Into<String>) -> Failure {
    let severity = usual_severity(class);
    Failure { class: class.into(), severity: severity.into(), message: message.into(), ..Failure::default() }
}

/// Creates a notice for the task's log.
pub(crate) fn notice(severity: Severity, code: &str, message: impl Into<String>) -> event::Kind {
    event::Kind::Notice(Notice { severity: severity.into(), code: code.to_owned(), message: message.into() })
}
