//! Reading all documents of a kind, page by page, at the start. Knows no payloads.

use std::collections::BTreeMap;

use rota_store::{Document, DocumentKey, DocumentKind, DocumentsPage};

use crate::store_client::StoreClient;

const PAGE_BYTES: usize = 4 << 20;
const PAGE_LIMIT: usize = 1000;

/// Returns the documents of a kind in all namespaces. Those that cannot be decoded are added to `damaged`.
pub(crate) async fn all(
    store: &StoreClient,
    kind: DocumentKind,
    damaged: &mut BTreeMap<DocumentKey, String>,
) -> Result<Vec<Document>, rota_store::Error> {
    let mut page = DocumentsPage { kind, namespace: None, after: None, limit: PAGE_LIMIT, bytes: PAGE_BYTES };
    let mut all = Vec::new();
    loop {
        let found = store.reads().documents(page.clone()).await?;
        damaged.extend(found.damaged);
        all.extend(found.documents);
        page.after = all.last().map(|last| (last.key.namespace.clone(), last.key.name.clone()));
        if !found.more {
            return Ok(all);
        }
    }
}
