//! Entries of a task's log: state changes and events of an attempt. Does not know how they are stored.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::State;
use crate::failure::{Failure, Severity};
use crate::{Timestamp, WorkerName};

/// Entry of a task's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the task's log, from 1, without gaps.
    #[serde(rename = "s")]
    pub log_seq: u64,
    #[serde(rename = "t")]
    pub at: Timestamp,
    /// Attempt that the entry belongs to; 0 before the first.
    #[serde(rename = "a")]
    pub attempt: u32,
    #[serde(rename = "b")]
    pub body: Body,
}

/// Content of a log entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Change of a task's state.
    State(StateChange),
    /// Report of the attempt: an encoded `Event` of the API, opaque here.
    Report(Bytes),
    Input {
        /// Position among the task's inputs, from 1.
        seq: u64,
        /// Encoded `TaskInput` of the API, opaque here.
        payload: Bytes,
    },
    Change {
        /// Names of the changed fields, as in the API.
        fields: Vec<Cow<'static, str>>,
        message: String,
    },
    /// Remark of the control plane.
    Notice {
        severity: Severity,
        /// A stable code, which programs may match.
        code: Cow<'static, str>,
        message: String,
    },
}

/// Change of a task's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    /// `None` in the first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<State>,
    pub to: State,
    /// A stable code, which programs may match.
    pub reason: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

impl StateChange {
    /// Returns a change with a reason and nothing else.
    pub fn new(to: State, reason: &'static str) -> Self {
        Self {
            from: None,
            to,
            reason: Cow::Borrowed(reason),
            message: String::new(),
            worker: None,
            failure: None,
            retry_at: None,
        }
    }

    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    #[must_use]
    pub fn worker(mut self, worker: &WorkerName) -> Self {
        self.worker = Some(worker.clone());
        self
    }

    #[must_use]
    pub fn failure(mut self, failure: Failure) -> Self {
        self.failure = Some(failure);
        self
    }
}
