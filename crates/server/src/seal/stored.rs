//! The keys of sealed secrets as the store names them, with the start of a control plane that has them or has not.

use prost::Message;
use rota_core::Namespace;
use rota_store::{Command, Document, DocumentKey, DocumentKind, Expected, PutDocument, Reply};

use super::key::{self, SecretKey};
use super::{Error, KeyFiles, Sealer};
use crate::store_client::StoreClient;

/// Payload of the document: check values of keys.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredKeys {
    /// What is new is sealed under it.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) current: Vec<u8>,
    /// Some secrets may still be sealed under it; empty if none is.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) previous: Vec<u8>,
}

impl StoredKeys {
    pub(crate) fn decode_document(document: &Document) -> Result<Self, Error> {
        Self::decode(&document.payload[..]).map_err(|_| Error::Undecodable)
    }

    pub(super) fn names(&self, key: &SecretKey) -> bool {
        self.current == key.check()
    }

    pub(crate) fn current_id(&self) -> String {
        key::id(&self.current)
    }

    pub(crate) fn previous_id(&self) -> String {
        key::id(&self.previous)
    }

    /// Returns the command that stores it.
    pub(crate) fn put(&self, expected: Expected) -> Command {
        let payload = self.encode_to_vec().into();
        Command::PutDocument(PutDocument { key: key_document(), payload, expected })
    }
}

/// Returns the key of the document that names the keys of sealed secrets. It belongs to no namespace, and has the default one.
pub fn key_document() -> DocumentKey {
    let namespace = Namespace::default();
    DocumentKey { kind: DocumentKind::SecretKey, namespace, name: "current".to_owned() }
}

impl KeyFiles {
    /// Fails unless they contain the keys that a store names in its document, which is given, if it names any.
    pub fn check(&self, document: Option<&Document>) -> Result<(), Error> {
        let stored = document.map(StoredKeys::decode_document).transpose()?;
        Sealer::open(self, stored.as_ref()).map(drop)
    }
}

/// Opens the keys that the store names. A store that names none takes the first one.
pub(crate) async fn open(files: &KeyFiles, store: &StoreClient) -> Result<Sealer, crate::error::Error> {
    let document = store.reads().document(key_document()).await?;
    let stored = document.as_ref().map(StoredKeys::decode_document).transpose()?;
    let sealer = Sealer::open(files, stored.as_ref())?;
    let keys = sealer.stored();
    let expected = match (&document, &stored) {
        (Some(document), Some(stored)) if sealer.check(stored).is_err() => {
            let (lost, key) = (stored.current_id(), keys.current_id());
            tracing::warn!(lost, key, "the key of the secrets in the store is replaced as lost");
            document.expected()
        }
        (Some(_), _) => return Ok(sealer),
        (None, _) => Expected::Absent,
    };
    match store.apply(vec![keys.put(expected)]).await?.pop() {
        Some(Ok(Reply::Document(_))) => Ok(sealer),
        _ => Err(rota_store::Error::Closed.into()),
    }
}
