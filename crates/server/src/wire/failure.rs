//! Failures: wire ⇄ core.

use std::time::Duration;

use rota_core::failure::{Class, Failure, Severity};
use rota_core::quota;
use rota_core::text::prefix;
use rota_proto::{num, v1};

use super::time;

const CLASSES: [(Class, v1::FailureClass); 21] = [
    (Class::Agent, v1::FailureClass::Agent),
    (Class::Start, v1::FailureClass::Start),
    (Class::Timeout, v1::FailureClass::Timeout),
    (Class::Hang, v1::FailureClass::Hang),
    (Class::Crash, v1::FailureClass::Crash),
    (Class::WorkerLost, v1::FailureClass::WorkerLost),
    (Class::Auth, v1::FailureClass::Auth),
    (Class::RateLimit, v1::FailureClass::RateLimit),
    (Class::Overload, v1::FailureClass::Overload),
    (Class::Refusal, v1::FailureClass::Refusal),
    (Class::Budget, v1::FailureClass::Budget),
    (Class::Invalid, v1::FailureClass::Invalid),
    (Class::Protocol, v1::FailureClass::Protocol),
    (Class::Dependency, v1::FailureClass::Dependency),
    (Class::QueueTimeout, v1::FailureClass::QueueTimeout),
    (Class::Quarantined, v1::FailureClass::Quarantined),
    (Class::Environment, v1::FailureClass::Environment),
    (Class::Source, v1::FailureClass::Source),
    (Class::Delivery, v1::FailureClass::Delivery),
    (Class::Setup, v1::FailureClass::Setup),
    (Class::Checks, v1::FailureClass::Checks),
];

pub(crate) fn severity(severity: Severity) -> v1::Severity {
    match severity {
        Severity::Low => v1::Severity::Low,
        Severity::Medium => v1::Severity::Medium,
        Severity::High => v1::Severity::High,
        Severity::Critical => v1::Severity::Critical,
    }
}

/// Converts a class to its enum value in the API.
pub(crate) fn class(class: Class) -> v1::FailureClass {
    CLASSES.iter().find(|(known, _)| *known == class).map(|(_, class)| *class).unwrap_or_default()
}

/// Returns the class of an enum value of the API; none for one that is unspecified.
pub(crate) fn known_class(class: v1::FailureClass) -> Option<Class> {
    CLASSES.iter().find(|(_, known)| *known == class).map(|(class, _)| *class)
}

pub(crate) fn to_wire(failure: &Failure) -> v1::Failure {
    v1::Failure {
        class: class(failure.class).into(),
        severity: severity(failure.severity).into(),
        message: failure.message.clone(),
        exit_code: failure.exit_code,
        signal: failure.signal,
        retry_after: failure.retry_after.map(time::duration).map(Box::new),
        hint: failure.hint.clone(),
        limit: (failure.limit_resets || !failure.limit.is_empty()).then(|| {
            Box::new(v1::ReachedLimit { name: failure.limit.clone(), resets: failure.limit_resets })
        }),
        of_storage: failure.of_storage,
        upload_bytes: failure.upload_bytes.map(num::to_i64),
    }
}

/// Returns the API's name of a class in lower case, without its prefix.
pub(crate) fn class_name(class: Class) -> String {
    self::class(class).as_str_name().trim_start_matches("FAILURE_CLASS_").to_ascii_lowercase()
}

/// Returns the name of a severity, such as `high`.
pub(crate) fn severity_name(severity: Severity) -> String {
    self::severity(severity).as_str_name().trim_start_matches("SEVERITY_").to_ascii_lowercase()
}

/// Converts a failure that a worker reported. Missing fields get defaults, and long texts are truncated.
pub(crate) fn from_wire(failure: v1::Failure) -> Failure {
    let class = CLASSES.iter().find(|(_, class)| i32::from(*class) == failure.class);
    let given = failure.severity();
    let mut converted =
        Failure::new(class.map_or(Class::Agent, |(class, _)| *class), cut(failure.message, 4096));
    converted.severity = match given {
        v1::Severity::Unspecified => converted.severity,
        v1::Severity::Low => Severity::Low,
        v1::Severity::Medium => Severity::Medium,
        v1::Severity::High => Severity::High,
        v1::Severity::Critical => Severity::Critical,
    };
    converted.exit_code = failure.exit_code;
    converted.signal = failure.signal;
    converted.retry_after =
        failure.retry_after.and_then(|wait| u64::try_from(wait.seconds).ok()).map(Duration::from_secs);
    converted.hint = cut(failure.hint, 1024);
    converted.of_storage = failure.of_storage;
    converted.upload_bytes = failure.upload_bytes.map(|bytes| u64::try_from(bytes).unwrap_or_default());
    if let Some(limit) = failure.limit {
        converted.limit = cut(limit.name, quota::MAX_LIMIT_NAME);
        converted.limit_resets = limit.resets && converted.retry_after.is_some();
    }
    converted
}

/// Shortens a text to at most `max` bytes.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    text.truncate(prefix(&text, max).len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_round_trip() {
        for class in Class::ALL {
            let failure = Failure::new(class, "x");
            assert_eq!(from_wire(to_wire(&failure)), failure);
            // Workers have the table of the API.
            let usual = rota_proto::limits::usual_severity(self::class(class));
            assert_eq!(severity(failure.severity), usual, "{class:?}");
            let of_storage = Failure { of_storage: true, upload_bytes: Some(7), ..failure };
            assert_eq!(from_wire(to_wire(&of_storage)), of_storage);
        }
    }
}
