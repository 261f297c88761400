//! Failures: classes, severities, and which recovery belongs to which. See `docs/failures.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What kind of failure ended an attempt or a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The program or agent said that it failed.
    Agent,
    /// It could not be started.
    Start,
    /// Total time ran out.
    Timeout,
    /// It fell silent.
    Hang,
    /// It ended without saying how, or by a signal.
    Crash,
    /// The worker was lost.
    WorkerLost,
    /// The model refuses the credentials.
    Auth,
    /// Too many requests.
    RateLimit,
    /// The model is overloaded or failing.
    Overload,
    /// The model refuses the task.
    Refusal,
    /// Turns, tokens or money ran out.
    Budget,
    /// The task's input cannot be used.
    Invalid,
    /// The agent broke its protocol.
    Protocol,
    /// A task that this one depends on did not succeed.
    Dependency,
    /// It waited too long in the queue.
    QueueTimeout,
    /// It kills workers.
    Quarantined,
    /// The worker's disk, memory or workspace failed it.
    Environment,
}

/// What is done about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Try again after a growing wait, as often as the task's policy says.
    Retry,
    /// Try again when told or after a growing wait; no attempt of the policy is spent, since the task is not to blame.
    Wait,
    /// Trying again is useless.
    Stop,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 17] = [
        Self::Agent,
        Self::Start,
        Self::Timeout,
        Self::Hang,
        Self::Crash,
        Self::WorkerLost,
        Self::Auth,
        Self::RateLimit,
        Self::Overload,
        Self::Refusal,
        Self::Budget,
        Self::Invalid,
        Self::Protocol,
        Self::Dependency,
        Self::QueueTimeout,
        Self::Quarantined,
        Self::Environment,
    ];

    /// What is done about an attempt that failed so.
    pub fn recovery(self) -> Recovery {
        match self {
            Self::Agent
            | Self::Hang
            | Self::Crash
            | Self::Protocol
            | Self::Environment
            | Self::WorkerLost => Recovery::Retry,
            Self::RateLimit | Self::Overload => Recovery::Wait,
            Self::Start
            | Self::Timeout
            | Self::Auth
            | Self::Refusal
            | Self::Budget
            | Self::Invalid
            | Self::Dependency
            | Self::QueueTimeout
            | Self::Quarantined => Recovery::Stop,
        }
    }
}

/// How bad a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Recovered by itself.
    Low,
    /// Costs time or an attempt.
    Medium,
    /// Ended the task.
    High,
    /// Will hit other tasks too, until a person does something.
    Critical,
}

/// Why an attempt or a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub class: Class,
    /// How bad.
    pub severity: Severity,
    /// A sentence for people.
    pub message: String,
    /// Exit code of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How long the failing side asked to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Failure {
    /// A failure with its class's usual severity.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        let severity = match class {
            Class::Auth | Class::Quarantined => Severity::Critical,
            _ => match class.recovery() {
                Recovery::Wait => Severity::Low,
                Recovery::Retry => Severity::Medium,
                Recovery::Stop => Severity::High,
            },
        };
        Self {
            class,
            severity,
            message: message.into(),
            exit_code: None,
            signal: None,
            retry_after: None,
            hint: String::new(),
        }
    }
}
