//! Creation, replacement and removal of documents, by compare-and-set.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::Timestamp;
use uuid::Builder;

use super::{Answer, Engine};
use crate::{
    Backend, Changes, Document, DocumentChange, DocumentKey, Error, Expected, Load, PutDocument, Refused,
    Reply, Stored,
};

/// A document as the batch sees it.
#[derive(Debug)]
struct Row {
    now: Stored<Option<Arc<Document>>>,
    changed: bool,
}

/// Documents that a batch has loaded, with its own changes on top.
#[derive(Debug, Default)]
pub(super) struct DocumentRows {
    rows: BTreeMap<DocumentKey, Row>,
    changes: Vec<DocumentChange>,
}

impl DocumentRows {
    /// Takes in what a load returned for the keys that it named.
    pub(super) fn learn(&mut self, load: &Load, loaded: Vec<(DocumentKey, Stored<Document>)>) {
        let found = loaded.into_iter().map(|(key, row)| (key, row.map(|row| Some(Arc::new(row)))));
        let absent = load.documents.iter().map(|key| (key.clone(), Ok(None)));
        for (key, now) in found.chain(absent) {
            self.rows.entry(key).or_insert(Row { now, changed: false });
        }
    }

    fn put(&mut self, key: DocumentKey, now: Option<Arc<Document>>) {
        self.rows.insert(key, Row { now: Ok(now), changed: true });
    }

    /// Adds what the batch changed to what it writes. Returns what it publishes.
    pub(super) fn take(&mut self, changes: &mut Changes) -> Vec<DocumentChange> {
        for (key, row) in std::mem::take(&mut self.rows) {
            match row {
                Row { now: Ok(Some(document)), changed: true } => changes.documents.push(document),
                Row { now: Ok(None), changed: true } => changes.removed_documents.push(key),
                _ => {}
            }
        }
        std::mem::take(&mut self.changes)
    }
}

impl<B: Backend> Engine<B> {
    pub(super) fn put_document(
        &mut self,
        put: PutDocument,
        now: Timestamp,
    ) -> Result<Result<Answer, Refused>, Error> {
        let PutDocument { key, payload, expected } = put;
        let known = match self.expect_document(&key, expected)? {
            Ok(known) => known,
            Err(refused) => return Ok(Err(refused)),
        };
        let document = match known {
            Some(known) if known.payload == payload => return Ok(Ok(Reply::Document(known).into())),
            Some(known) => {
                Document { version: known.version + 1, updated_at: now, payload, ..Document::clone(&known) }
            }
            None => {
                let uid = Builder::from_random_bytes(self.random()).into_uuid();
                Document { key: key.clone(), uid, version: 1, created_at: now, updated_at: now, payload }
            }
        };
        let document = Arc::new(document);
        self.write_set.documents.put(key, Some(Arc::clone(&document)));
        let change = DocumentChange { document: Arc::clone(&document), deleted: false };
        self.write_set.documents.changes.push(change);
        Ok(Ok(Reply::Document(document).into()))
    }

    pub(super) fn delete_document(
        &mut self,
        key: DocumentKey,
        expected: Expected,
    ) -> Result<Result<Answer, Refused>, Error> {
        let document = match self.expect_document(&key, expected)? {
            Ok(Some(document)) => Some(document),
            Ok(None) => return Ok(Err(Refused::NoDocument(key))),
            // Of one that cannot be decoded, only the key is known.
            Err(Refused::Corrupt { .. }) if expected == Expected::Any => None,
            Err(refused) => return Ok(Err(refused)),
        };
        self.write_set.documents.put(key, None);
        let change = document.map(|document| DocumentChange { document, deleted: true });
        self.write_set.documents.changes.extend(change);
        Ok(Ok(Reply::Deleted.into()))
    }

    /// Returns a document in the current state of the batch, if that is the expected one.
    fn expect_document(
        &mut self,
        key: &DocumentKey,
        expected: Expected,
    ) -> Result<Result<Option<Arc<Document>>, Refused>, Error> {
        if !self.write_set.documents.rows.contains_key(key) {
            self.fetch(&Load { documents: vec![key.clone()], ..Load::default() })?;
        }
        let known = match self.write_set.documents.rows.get(key).map(|row| &row.now) {
            Some(Ok(known)) => known.clone(),
            Some(Err(reason)) => {
                return Ok(Err(Refused::Corrupt { what: key.to_string(), reason: reason.clone() }));
            }
            None => None,
        };
        Ok(match (expected, &known) {
            (Expected::Absent, Some(_)) => Err(Refused::DocumentExists(key.clone())),
            (Expected::Version(..), None) => Err(Refused::NoDocument(key.clone())),
            (Expected::Version(uid, version), Some(known))
                if (known.uid, known.version) != (uid, version) =>
            {
                Err(Refused::DocumentChanged(key.clone()))
            }
            _ => Ok(known),
        })
    }
}
