//! Agents as the core sees them: what matters for matching and scaling. The rest of an agent is
//! an opaque payload.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::task::Limits;
use crate::{AgentName, Namespace, Timestamp};

/// A kind of worker, and the pool of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: AgentName,
    /// Grows with each change of its spec.
    pub generation: u64,
    /// What it can do.
    pub capabilities: BTreeSet<String>,
    /// The bounds of tasks that set none themselves.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub defaults: Limits,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The API's `Agent` without output-only fields, encoded; opaque to the core and the store.
    pub payload: Bytes,
}
