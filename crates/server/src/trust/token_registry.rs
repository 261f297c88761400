//! Worker tokens that the store has records of: each is valid as long as its record exists. Counts the sessions that are open
//! with each, and ends them when it is revoked. Knows nothing of what a session does.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use prost::Message;
use rota_core::{Namespace, Timestamp};
use rota_proto::reasons;
use rota_store::{Command, Document, DocumentChange, DocumentKey, DocumentKind, PutDocument};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::clock::now;
use crate::metrics::Metrics;
use crate::store_client::StoreClient;
use crate::wire::status::{error, hinted};

/// Precision of the last use as stored: a token that many workers share does not cost a write for each session.
const LAST_USE_PRECISION: Duration = Duration::from_secs(3600);

/// Sessions that may be open with one token.
pub(crate) const MAX_SESSIONS: i32 = 1000;

/// Payload of the document of a worker token. The token itself is not stored.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredToken {
    #[prost(string, tag = "1")]
    pub(crate) agent: String,
    /// Empty if any worker of the agent may use the token.
    #[prost(string, tag = "2")]
    pub(crate) worker: String,
    /// Concurrent attempts of a worker; 0 without a limit.
    #[prost(int32, tag = "3")]
    pub(crate) max_slots: i32,
    #[prost(string, repeated, tag = "4")]
    pub(crate) capabilities: Vec<String>,
    #[prost(string, tag = "5")]
    pub(crate) creator: String,
    #[prost(int64, tag = "6")]
    pub(crate) expires: i64,
    /// 0 if no session was opened with it.
    #[prost(int64, tag = "7")]
    pub(crate) last_use: i64,
}

/// A token's record, with the use that is made of it.
#[derive(Debug)]
pub(crate) struct TokenRecord {
    pub(crate) id: Uuid,
    pub(crate) document: Arc<Document>,
    pub(crate) stored: StoredToken,
    usage: Arc<Usage>,
}

/// Use of a token, which outlives changes of its record.
#[derive(Debug, Default)]
struct Usage {
    revoked: CancellationToken,
    sessions: AtomicI32,
    last_use: AtomicI64,
    /// The last use that was sent to the store.
    recorded: AtomicI64,
}

impl TokenRecord {
    pub(crate) fn has_expired(&self) -> bool {
        Timestamp(self.stored.expires) <= now()
    }

    /// Returns the number of sessions that are open with the token.
    pub(crate) fn sessions(&self) -> i32 {
        self.usage.sessions.load(Ordering::Relaxed)
    }

    /// Returns the last time at which a session was open.
    pub(crate) fn last_use(&self) -> Option<Timestamp> {
        match (self.sessions(), self.usage.last_use.load(Ordering::Relaxed)) {
            (0, 0) => None,
            (0, at) => Some(Timestamp(at)),
            _ => Some(now()),
        }
    }
}

/// Returns the key of the document of a token.
pub(crate) fn document_key(namespace: Namespace, id: Uuid) -> DocumentKey {
    DocumentKey { kind: DocumentKind::WorkerToken, namespace, name: id.to_string() }
}

/// Records of the tokens in the store, as of the last applied commit.
#[derive(Debug, Default)]
pub(crate) struct TokenRegistry(RwLock<HashMap<Uuid, Arc<TokenRecord>>>);

impl TokenRegistry {
    /// Returns the records in a store.
    pub(crate) async fn restore(store: &StoreClient, metrics: &Metrics) -> Result<Self, rota_store::Error> {
        let (registry, mut damaged) = (Self::default(), BTreeMap::new());
        for document in crate::documents::all(store, DocumentKind::WorkerToken, &mut damaged).await? {
            registry.put(Arc::new(document));
        }
        metrics.undecodable(damaged.iter().map(|(key, reason)| (key as &dyn Display, reason)));
        Ok(registry)
    }

    /// Takes in a change of a document.
    pub(crate) fn apply(&self, change: &DocumentChange) {
        let document = &change.document;
        if document.key.kind != DocumentKind::WorkerToken {
            return;
        }
        if !change.deleted {
            return self.put(Arc::clone(document));
        }
        let revoked = document.key.name.parse().ok().and_then(|id: Uuid| self.0.write().remove(&id));
        if let Some(record) = revoked {
            record.usage.revoked.cancel();
        }
    }

    fn put(&self, document: Arc<Document>) {
        let (Ok(id), Ok(stored)) = (document.key.name.parse(), StoredToken::decode(&document.payload[..]))
        else {
            return tracing::error!(document = %document.key, "a record cannot be decoded: the worker token is not valid");
        };
        let mut known = self.0.write();
        let before: Option<&Arc<TokenRecord>> = known.get(&id);
        if before.is_some_and(|before| before.document.version > document.version) {
            return;
        }
        let usage = match before {
            Some(before) => Arc::clone(&before.usage),
            None => Arc::new(Usage {
                last_use: stored.last_use.into(),
                recorded: stored.last_use.into(),
                ..Usage::default()
            }),
        };
        known.insert(id, Arc::new(TokenRecord { id, document, stored, usage }));
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<Arc<TokenRecord>> {
        self.0.read().get(&id).cloned()
    }

    /// Returns the records of a namespace, or of all.
    pub(crate) fn list(&self, namespace: Option<&Namespace>) -> Vec<Arc<TokenRecord>> {
        let fits = |record: &&Arc<TokenRecord>| {
            namespace.is_none_or(|namespace| record.document.key.namespace == *namespace)
        };
        self.0.read().values().filter(fits).cloned().collect()
    }

    /// Begins a session with a token. Fails if the token was revoked, or has too many.
    pub(crate) fn open_session(&self, id: Uuid) -> Result<TokenSession, Status> {
        let record = self.get(id).ok_or_else(revoked)?;
        let open = record.usage.sessions.fetch_add(1, Ordering::Relaxed);
        let session = TokenSession(record);
        if open >= MAX_SESSIONS {
            let text = format!("{MAX_SESSIONS} sessions are open with the token, the most that are allowed");
            return Err(hinted("LIMIT_REACHED", text, "give further workers another token"));
        }
        Ok(session)
    }
}

/// Error that ends a worker whose token was revoked.
pub(crate) fn revoked() -> Status {
    error(reasons::TOKEN_REVOKED, "the worker's token was revoked")
}

/// A session that is open with a token.
pub(crate) struct TokenSession(Arc<TokenRecord>);

impl TokenSession {
    /// Waits until the token is revoked.
    pub(crate) async fn revoked(&self) {
        self.0.usage.revoked.cancelled().await;
    }

    /// Returns the command that stores this use of the token, unless a recent one is stored. It fails if the token is revoked
    /// meanwhile.
    pub(crate) fn record_use(&self) -> Option<Command> {
        let (usage, at) = (&self.0.usage, now());
        let recorded = usage.recorded.load(Ordering::Relaxed);
        if at < Timestamp(recorded) + LAST_USE_PRECISION
            || usage.recorded.compare_exchange(recorded, at.0, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return None;
        }
        let stored = StoredToken { last_use: at.0, ..self.0.stored.clone() };
        Some(Command::PutDocument(PutDocument {
            key: self.0.document.key.clone(),
            payload: stored.encode_to_vec().into(),
            expected: self.0.document.expected(),
        }))
    }
}

impl Drop for TokenSession {
    fn drop(&mut self) {
        self.0.usage.last_use.fetch_max(now().0, Ordering::Relaxed);
        self.0.usage.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(namespace: &str, id: Uuid) -> Arc<Document> {
        Arc::new(Document {
            key: document_key(Namespace::new(namespace).unwrap(), id),
            uid: Uuid::from_u128(1),
            version: 1,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            payload: StoredToken { expires: i64::MAX, ..StoredToken::default() }.encode_to_vec().into(),
        })
    }

    #[test]
    fn sessions_of_a_token_are_limited() {
        let (registry, id) = (TokenRegistry::default(), Uuid::from_u128(7));
        registry.apply(&DocumentChange { document: record("n", id), deleted: false });
        let mut sessions: Vec<_> = (0..MAX_SESSIONS).map(|_| registry.open_session(id).unwrap()).collect();
        let Err(refused) = registry.open_session(id) else { panic!("one too many") };
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(registry.get(id).unwrap().sessions(), MAX_SESSIONS);
        sessions.pop();
        registry.open_session(id).unwrap();
    }

    #[test]
    fn use_of_a_token_is_recorded_once() {
        let (registry, id) = (TokenRegistry::default(), Uuid::from_u128(7));
        registry.apply(&DocumentChange { document: record("n", id), deleted: false });
        let (one, two) = (registry.open_session(id).unwrap(), registry.open_session(id).unwrap());
        assert!(one.record_use().is_some());
        assert!(two.record_use().is_none() && one.record_use().is_none());
    }
}
