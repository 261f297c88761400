//! Documents: their changes, and pages of them.

use super::Contents;
use crate::{Changes, Document, Documents, DocumentsPage};

impl Contents {
    pub(super) fn write_documents(&mut self, changes: &Changes) {
        self.documents.retain(|key, _| !changes.removed_documents.contains(key));
        for document in &changes.documents {
            self.documents.insert(document.key.clone(), Document::clone(document));
        }
    }

    pub(super) fn document_page(&self, page: &DocumentsPage) -> Documents {
        let mut found = Documents::default();
        for (key, document) in &self.documents {
            let place = (key.namespace.clone(), key.name.clone());
            let fits = key.kind == page.kind
                && page.namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
                && page.after.as_ref().is_none_or(|after| place > *after);
            if !fits {
                continue;
            }
            if page.is_full(&found.documents) {
                found.more = true;
                break;
            }
            found.documents.push(document.clone());
        }
        found
    }
}
