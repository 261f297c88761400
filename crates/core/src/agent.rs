//! Agent records: what matching and limits need. The rest of an agent is an opaque payload.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::spending::Budget;
use crate::target::ISOLATED;
use crate::task::Limits;
use crate::{AgentName, Namespace, Timestamp};

/// Kind of worker, and the pool of workers of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub namespace: Namespace,
    pub name: AgentName,
    /// Number that grows with each change of the spec.
    pub generation: u64,
    pub capabilities: BTreeSet<String>,
    /// Limits of tasks that set none themselves.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub defaults: Limits,
    /// Limits of the cost of all its tasks together.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Encoded `Agent` of the API without output-only fields; opaque to the core and the store.
    pub payload: Bytes,
}

impl Agent {
    /// Whether its workers may have all of these capabilities. Which of them isolate their attempts is a property of each.
    pub fn may_have<'a>(&self, words: impl IntoIterator<Item = &'a String>) -> bool {
        words.into_iter().all(|word| word == ISOLATED || self.capabilities.contains(word))
    }
}
