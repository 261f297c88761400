//! Entries of a task's log.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::State;
use crate::failure::{Failure, Severity};
use crate::{Timestamp, WorkerName};

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the log, from 1, without gaps.
    #[serde(rename = "s")]
    pub log_seq: u64,
    /// When.
    #[serde(rename = "t")]
    pub at: Timestamp,
    /// The attempt it belongs to; 0 before the first.
    #[serde(rename = "a")]
    pub attempt: u32,
    /// What.
    #[serde(rename = "b")]
    pub body: Body,
}

/// What an entry tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A step from one state to another.
    State(StateChange),
    /// Something that the attempt did: the API's `Event`, encoded; opaque here.
    Report(Bytes),
    /// Somebody gave input: the API's `TaskInput`, encoded; opaque here.
    Input {
        /// Position among the task's inputs, from 1.
        seq: u64,
        /// What was given.
        payload: Bytes,
    },
    /// Somebody changed what may be changed.
    Change {
        /// The fields, as the API names them.
        fields: Vec<Cow<'static, str>>,
        /// A sentence.
        message: String,
    },
    /// A remark of the control plane.
    Notice {
        /// How bad.
        severity: Severity,
        /// A word for programs.
        code: Cow<'static, str>,
        /// A sentence.
        message: String,
    },
}

/// A step from one state to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    /// Before; `None` on the first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<State>,
    /// After.
    pub to: State,
    /// A word for programs.
    pub reason: Cow<'static, str>,
    /// A sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The worker concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// Why an attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

impl StateChange {
    /// A step with a reason and nothing else.
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

    /// With a sentence.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// With a worker.
    #[must_use]
    pub fn worker(mut self, worker: &WorkerName) -> Self {
        self.worker = Some(worker.clone());
        self
    }

    /// With a failure.
    #[must_use]
    pub fn failure(mut self, failure: Failure) -> Self {
        self.failure = Some(failure);
        self
    }
}
