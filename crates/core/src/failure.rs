//! Failure classes, severities, and the recovery that belongs to each class. See `docs/failures.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retry::{MAX_RESET, MIN_FREE_RESET, MIN_RESET};

/// Class of a failure, which decides the recovery and what the circuit breaker makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The program or agent reported failure.
    Agent,
    /// The program could not be started.
    Start,
    /// The total timeout was exceeded.
    Timeout,
    /// The attempt produced no output within its silence timeout.
    Hang,
    /// The process ended without a result, or by a signal.
    Crash,
    /// The worker disconnected for longer than its lease, or stopped.
    WorkerLost,
    /// The model API rejected the credentials.
    Auth,
    /// The model API limits the rate of requests.
    RateLimit,
    /// The model API is overloaded or failing.
    Overload,
    /// The model refused the task.
    Refusal,
    /// The limit of turns, tokens or cost was reached.
    Budget,
    /// The task's input is unusable.
    Invalid,
    /// The agent violated its protocol.
    Protocol,
    /// A dependency did not succeed.
    Dependency,
    /// The queue timeout was exceeded.
    QueueTimeout,
    /// The task lost too many workers.
    Quarantined,
    /// The worker's disk, memory or workspace failed.
    Environment,
    /// The host of the task's repository does not respond, or refuses the credentials; or the storage of artifacts does not
    /// respond; or the control plane refuses what the attempt needs.
    Source,
    /// The work is done and kept, and could not be pushed to its repository.
    Delivery,
    /// A command that prepares the workspace failed.
    Setup,
    /// The agent has finished, and a command that the task must pass to be done failed.
    Checks,
}

/// Reaction to a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Retry with backoff, as often as the task's policy allows.
    Retry,
    /// Retry after the requested wait or with backoff. No attempt of the policy is used, since the task is not to
    /// blame.
    Wait,
    /// Like [`Recovery::Wait`], however often, while model and credentials are the agent's: they are at fault until someone
    /// replaces them. Limited like other waits if the task chose among them. Stop if the task brought its own.
    Credentials,
    /// Retry once, preferably on another worker: the failure may be that of a single machine.
    Elsewhere,
    /// Do not retry: another attempt would fail the same way.
    Stop,
}

impl Class {
    pub const ALL: [Self; 21] = [
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
        Self::Source,
        Self::Delivery,
        Self::Setup,
        Self::Checks,
    ];

    /// Whether the worker, its machine or its network may be to blame, so that the next attempt avoids it.
    pub fn may_be_of_worker(self) -> bool {
        matches!(self, Self::Start | Self::Environment | Self::Crash | Self::Source)
    }

    /// Whether the program came to its own end: the next attempt would fail in the same way if it continued.
    pub fn is_own_end(self) -> bool {
        matches!(
            self,
            Self::Agent
                | Self::Refusal
                | Self::Budget
                | Self::Invalid
                | Self::Protocol
                | Self::Checks
                | Self::Setup
        )
    }

    /// Whether another model may do better.
    pub fn may_be_of_model(self) -> bool {
        matches!(self, Self::Agent | Self::Checks | Self::Hang)
    }

    /// Returns the reaction to a failure of this class.
    pub fn recovery(self) -> Recovery {
        match self {
            Self::Agent
            | Self::Hang
            | Self::Crash
            | Self::Protocol
            | Self::Environment
            | Self::Setup
            | Self::Checks
            | Self::WorkerLost => Recovery::Retry,
            Self::RateLimit | Self::Overload | Self::Source => Recovery::Wait,
            Self::Auth => Recovery::Credentials,
            Self::Start => Recovery::Elsewhere,
            Self::Timeout
            | Self::Refusal
            | Self::Budget
            | Self::Invalid
            | Self::Dependency
            | Self::QueueTimeout
            | Self::Quarantined
            | Self::Delivery => Recovery::Stop,
        }
    }
}

/// Severity of a failure, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Low,
    Medium,
    High,
    /// Affects other tasks too, until a person intervenes.
    Critical,
}

/// Cause of a failed attempt or task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: Class,
    pub severity: Severity,
    /// Cause in one sentence, for users.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Wait that the failing side requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// Remedy, for users; empty if none is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Limit of the model API that was reached, such as `five_hour`; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub limit: String,
    /// Whether `retry_after` is the time until that limit ends, as the API named it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub limit_resets: bool,
    /// Whether the storage of artifacts did not respond, or has no room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_storage: bool,
    /// Bytes of an upload for which the artifacts of the namespace had no room; 0 if nothing was uploaded, `None` if that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes: Option<u64>,
}

impl Failure {
    /// Whether the worker, its machine or its network may be to blame: all workers store their artifacts in the same place.
    pub fn may_be_of_worker(&self) -> bool {
        self.class.may_be_of_worker() && !self.of_storage
    }

    /// Returns the time until the limit ends that the attempt has reached, if the model API named an end that is ahead.
    pub fn resets_in(&self) -> Option<Duration> {
        let resets = self.retry_after.filter(|_| self.limit_resets)?.min(MAX_RESET);
        (resets >= MIN_RESET).then_some(resets)
    }

    /// Whether the wait for the end of its limit counts as none of the waits that a task has.
    pub fn waits_free(&self) -> bool {
        self.resets_in().is_some_and(|resets| resets >= MIN_FREE_RESET)
    }

    /// Returns a failure with the default severity of its class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        let severity = match class {
            Class::Auth | Class::Quarantined => Severity::Critical,
            _ => match class.recovery() {
                Recovery::Wait => Severity::Low,
                Recovery::Retry => Severity::Medium,
                Recovery::Credentials | Recovery::Elsewhere | Recovery::Stop => Severity::High,
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
            limit: String::new(),
            limit_resets: false,
            of_storage: false,
            upload_bytes: None,
        }
    }
}
