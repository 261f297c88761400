//! What a tick judges.

use std::collections::HashSet;
use std::sync::Arc;

use rota_core::Timestamp;

use crate::{Command, SessionKey};

/// A request to apply the deadlines that have passed.
#[derive(Debug, Clone, Default)]
pub struct Tick {
    /// Deadlines that are applied at most; the others stay due.
    pub limit: usize,
    /// The time of the clock when the caller last saw that it had not jumped: no later deadline is judged.
    pub at: Option<Timestamp>,
    /// Workers without a connection: they cannot accept what was assigned to them, and their leases decide what becomes of it.
    pub disconnected: Arc<HashSet<SessionKey>>,
}

impl Tick {
    /// Returns the time by which deadlines are judged. Their consequences have the time of the batch, so that nothing begins before
    /// what it follows has ended.
    pub(crate) fn by(&self, now: Timestamp) -> Timestamp {
        self.at.unwrap_or(now).min(now)
    }
}

impl Command {
    /// Returns the command that applies at most so many of the deadlines that have passed.
    pub fn tick(limit: usize) -> Self {
        Self::Tick(Tick { limit, ..Tick::default() })
    }
}
