//! Sealed secrets of tasks, whose key is replaced. The store cannot open them.

use bytes::Bytes;
use rota_core::TaskKey;

use crate::ScopedId;

/// Sealed secrets of a task, with what they are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecrets {
    pub key: TaskKey,
    pub id: ScopedId,
    pub sealed: Bytes,
}

/// Replacement of the sealed secrets of a task by the same under another key.
#[derive(Debug, Clone)]
pub struct Reseal {
    pub key: TaskKey,
    /// Secrets as they were read. Others change nothing.
    pub before: Bytes,
    pub after: Bytes,
}
