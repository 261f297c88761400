//! Limits of control planes within which workers stay: what is beyond is refused, cut or left out. The server asserts that those of its
//! other crates are the same. Times are in [`crate::times`].

use std::time::Duration;

use crate::v1::{FailureClass, Severity};

/// Bytes of a title, an owner or a description. Manifests have the same limits as requests.
pub const TITLE_BYTES: usize = 256;
/// Longest timeout of a task or an agent.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(7 * 24);
/// Bytes of an encoded event.
pub const EVENT_BYTES: usize = 256 << 10;
/// Bytes of an encoded result.
pub const RESULT_BYTES: usize = 1 << 20;
/// Bytes of the text of a result.
pub const RESULT_TEXT_BYTES: usize = 256 << 10;
/// Strings and messages in a message of a session: JSON of 1 MiB has about as many values.
pub const MESSAGE_ELEMENTS: usize = 256 << 10;
/// Open input requests of an attempt, which fails with more.
pub const OPEN_REQUESTS: usize = 32;
/// Choices of an input request.
pub const CHOICES: usize = 64;
/// Bytes of the prompt and of the tool's input of an open input request; workers send less of each.
pub const QUESTION_BYTES: usize = 20 << 10;
/// Bytes of the id and the tool of an input request, and of each choice.
pub const REQUEST_NAME_BYTES: usize = 256;
/// Bytes of a compiled pattern of a schema, and of what matching it remembers.
pub const COMPILED_PATTERN_BYTES: usize = 128 << 10;

/// Returns the severity of a failure whose reporter gives none.
pub fn usual_severity(class: FailureClass) -> Severity {
    match class {
        FailureClass::Auth | FailureClass::Quarantined => Severity::Critical,
        FailureClass::RateLimit | FailureClass::Overload | FailureClass::Source => Severity::Low,
        FailureClass::Agent
        | FailureClass::Hang
        | FailureClass::Crash
        | FailureClass::Protocol
        | FailureClass::Environment
        | FailureClass::Setup
        | FailureClass::Checks
        | FailureClass::WorkerLost => Severity::Medium,
        _ => Severity::High,
    }
}
