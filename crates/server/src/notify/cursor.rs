//! Durable position of a receiver: the revision up to which everything was delivered, as a document of the store, so that every
//! replica continues where the last one has ended. A position that is too old repeats notifications, and never loses one.

use prost::Message;
use rota_core::{Namespace, Timestamp};
use rota_store::{
    Command, Document, DocumentKey, DocumentKind, DocumentsPage, Error, Expected, PutDocument, Snapshot,
};

use super::receivers::MAX_RECEIVERS;
use crate::store_client::StoreClient;

const PAGE_BYTES: usize = 64 << 10;

/// Position of one receiver, and where to keep it.
#[derive(Clone)]
pub(super) struct Cursor {
    key: DocumentKey,
    store: StoreClient,
}

/// Payload of the document of a receiver.
#[derive(Clone, PartialEq, Message)]
struct Position {
    #[prost(uint64, tag = "1")]
    revision: u64,
    /// Time up to which everything about workflows was delivered, in microseconds.
    #[prost(int64, optional, tag = "2")]
    at: Option<i64>,
}

/// Removes the positions of receivers that no longer exist: one that comes back starts over.
pub(super) async fn remove_others(store: &StoreClient, names: &[&str]) -> Result<(), Error> {
    let page = DocumentsPage {
        kind: DocumentKind::NotificationPosition,
        namespace: None,
        after: None,
        limit: 2 * MAX_RECEIVERS,
        bytes: PAGE_BYTES,
    };
    let known = store.reads().documents(page).await?.documents;
    let others = known.into_iter().filter(|document| !names.contains(&document.key.name.as_str()));
    let batch: Vec<_> = others.map(|other| Command::DeleteDocument(other.key, Expected::Any)).collect();
    match batch.is_empty() {
        true => Ok(()),
        false => store.apply(batch).await.map(drop),
    }
}

impl Cursor {
    /// Returns the position of a receiver, and the time up to which it has everything about workflows; that of the snapshot, and none,
    /// if there is none, which is not kept yet.
    pub(super) async fn open(
        store: &StoreClient,
        receiver: &str,
        snapshot: &Snapshot,
    ) -> Result<(Self, u64, Option<Timestamp>), Error> {
        // Receivers belong to no namespace.
        let (namespace, name) = (Namespace::default(), receiver.to_owned());
        let key = DocumentKey { kind: DocumentKind::NotificationPosition, namespace, name };
        let known = store.reads().document(key.clone()).await?;
        let position = known.and_then(|known| decode(&known));
        let at = position.as_ref().and_then(|known| known.at).map(Timestamp);
        let revision = position.map_or(snapshot.revision, |known| known.revision.min(snapshot.revision));
        Ok((Self { key, store: store.clone() }, revision, at))
    }

    /// Replaces the position, and returns once it is durable.
    pub(super) async fn save(&self, revision: u64, at: Timestamp) -> Result<(), Error> {
        let payload = Position { revision, at: Some(at.0) }.encode_to_vec().into();
        let put = PutDocument { key: self.key.clone(), payload, expected: Expected::Any };
        let replies = self.store.apply_lazily(vec![Command::PutDocument(put)]).await?;
        match replies.first() {
            Some(Ok(_)) => Ok(()),
            _ => Err(Error::Closed),
        }
    }
}

fn decode(document: &Document) -> Option<Position> {
    let decoded = Position::decode(&document.payload[..]);
    let logged = decoded.inspect_err(|error| {
        let receiver = document.key.name.as_str();
        tracing::error!(receiver, %error, "the position of a receiver is damaged: it gets what happens from now on");
    });
    logged.ok()
}
