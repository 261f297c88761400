//! Uploads that were refused for want of room, for as long as there is none. Knows nothing of the attempts that wait.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::Timestamp;
use rota_proto::{causes, names};
use tokio::sync::Notify;
use tonic::Status;

use super::SHOWN;
use crate::health::{Cause, State};
use crate::wire::status::no_room;
use crate::wire::time::rfc3339;

/// Namespaces that are known, beyond which the oldest refusal is forgotten.
const MAX_KNOWN: usize = 10_000;

/// The last refusals, by namespace. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Full {
    refused: Arc<Mutex<HashMap<Arc<str>, Refused>>>,
    newly: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    since: Timestamp,
    last: Timestamp,
}

impl Full {
    /// Notes an upload that was refused.
    pub(super) fn refused(&self, namespace: &str, now: Timestamp) {
        let mut refused = self.refused.lock();
        let before = refused.get(namespace).filter(|before| before.last + SHOWN > now);
        let since = before.map_or(now, |before| before.since);
        refused.insert(namespace.into(), Refused { since, last: now });
        if refused.len() > MAX_KNOWN {
            let oldest = refused.iter().min_by_key(|(_, one)| one.last).map(|(name, _)| Arc::clone(name));
            oldest.map(|name| refused.remove(&name));
        }
        drop(refused);
        self.newly.notify_one();
    }

    /// Waits until an upload is refused that was not waited for yet.
    pub(super) async fn newly(&self) {
        self.newly.notified().await;
    }

    /// Returns since when uploads of a namespace are refused, if the last one was lately.
    pub(super) fn shown(&self, namespace: &str, now: Timestamp) -> Option<Timestamp> {
        let refused = self.refused.lock();
        refused.get(namespace).filter(|one| one.last + SHOWN > now).map(|one| one.since)
    }

    /// Returns the namespaces of uploads that were refused.
    pub(super) fn namespaces(&self, now: Timestamp) -> Vec<Arc<str>> {
        let mut refused = self.refused.lock();
        refused.retain(|_, one| one.last + SHOWN > now);
        refused.keys().cloned().collect()
    }
}

/// Why an upload is refused.
#[derive(Debug)]
pub(crate) struct NoRoom {
    pub(crate) message: String,
    pub(crate) hint: &'static str,
    /// Bytes that there was no room for: at least one.
    pub(super) bytes: u64,
}

impl NoRoom {
    /// Returns the cause for a namespace whose uploads are refused.
    pub(super) fn cause(self, namespace: &str, since: Timestamp) -> Cause {
        let since = rfc3339(since);
        Cause {
            state: State::Degraded,
            code: causes::ARTIFACTS_FULL,
            subject: names::namespace(namespace),
            message: format!(
                "artifacts of namespace {namespace} are refused since {since}, and attempts wait to store theirs: {}",
                self.message
            ),
            hint: format!("{}; what waits continues by itself", self.hint),
        }
    }
}

impl From<NoRoom> for Status {
    fn from(full: NoRoom) -> Self {
        no_room(full.message, full.hint, full.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn refusal_is_shown_while_it_is_repeated() {
        let (full, start) = (Full::default(), Timestamp(0));
        full.refused("n", start);
        let later = start + Duration::from_secs(600);
        full.refused("n", later);
        assert_eq!(full.shown("n", start + SHOWN), Some(start));
        assert_eq!((full.shown("n", later + SHOWN), full.shown("m", later)), (None, None));
        full.refused("n", later + SHOWN);
        assert_eq!(full.shown("n", later + SHOWN), Some(later + SHOWN), "another one");
        assert_eq!(full.namespaces(later + SHOWN), ["n".into()]);
        assert_eq!(full.namespaces(later + SHOWN + SHOWN), []);
    }
}
