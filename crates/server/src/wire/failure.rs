//! Failures: wire ⇄ core.

use std::time::Duration;

use rota_core::failure::{Class, Failure, Severity};
use rota_proto::v1;

use super::time;

const CLASSES: [(Class, v1::FailureClass); 17] = [
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
];

pub(crate) fn severity(severity: Severity) -> v1::Severity {
    match severity {
        Severity::Low => v1::Severity::Low,
        Severity::Medium => v1::Severity::Medium,
        Severity::High => v1::Severity::High,
        Severity::Critical => v1::Severity::Critical,
    }
}

/// A class in the API's words.
pub(crate) fn class(class: Class) -> v1::FailureClass {
    CLASSES.iter().find(|(known, _)| *known == class).map(|(_, class)| *class).unwrap_or_default()
}

pub(crate) fn to_wire(failure: &Failure) -> v1::Failure {
    v1::Failure {
        class: class(failure.class).into(),
        severity: severity(failure.severity).into(),
        message: failure.message.clone(),
        exit_code: failure.exit_code,
        signal: failure.signal,
        retry_after: failure.retry_after.map(time::duration),
        hint: failure.hint.clone(),
    }
}

/// A class in the API's words, in lower case.
pub(crate) fn class_name(class: Class) -> String {
    self::class(class).as_str_name().trim_start_matches("FAILURE_CLASS_").to_ascii_lowercase()
}

/// A worker's word on a failure. What it leaves out is filled in; what is too long is cut.
pub(crate) fn from_wire(failure: v1::Failure) -> Failure {
    let class = CLASSES.iter().find(|(_, class)| i32::from(*class) == failure.class);
    let given = failure.severity();
    let mut told = Failure::new(class.map_or(Class::Agent, |(class, _)| *class), cut(failure.message, 4096));
    told.severity = match given {
        v1::Severity::Unspecified => told.severity,
        v1::Severity::Low => Severity::Low,
        v1::Severity::Medium => Severity::Medium,
        v1::Severity::High => Severity::High,
        v1::Severity::Critical => Severity::Critical,
    };
    told.exit_code = failure.exit_code;
    told.signal = failure.signal;
    told.retry_after =
        failure.retry_after.and_then(|wait| u64::try_from(wait.seconds).ok()).map(Duration::from_secs);
    told.hint = cut(failure.hint, 1024);
    told
}

/// The beginning of a text, at most so many bytes, whole characters only.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
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
        }
    }
}
