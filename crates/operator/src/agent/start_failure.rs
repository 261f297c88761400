//! Reasons for which the workers of an agent do not start.

/// Why workers of an agent do not start: its spec is invalid or rejected, or its pods are rejected or fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    /// CamelCase reason, as in conditions and Events.
    pub reason: String,
    pub message: String,
}

impl StartFailure {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}
