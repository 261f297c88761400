//! Lists of documents.

use rota_store::{Documents, DocumentsPage, Error};
use rusqlite::{Connection, ToSql};

use crate::open::explain;
use crate::{readers, sql};

/// Reads a page of documents. One that cannot be decoded is missing from it, and does not hide the others.
pub(crate) fn page(connection: &Connection, page: &DocumentsPage) -> Result<Documents, Error> {
    let (namespace, name) =
        page.after.as_ref().map_or(("", ""), |(namespace, name)| (namespace.as_str(), name.as_str()));
    let (sql, namespace, name) = match &page.namespace {
        None => (sql::DOCUMENTS, namespace, name),
        // A position in another namespace is before, or after, all of this one.
        Some(wanted) if namespace > wanted.as_str() => return Ok(Documents::default()),
        Some(wanted) if namespace == wanted.as_str() => (sql::DOCUMENTS_NAMESPACE, namespace, name),
        Some(wanted) => (sql::DOCUMENTS_NAMESPACE, wanted.as_str(), ""),
    };
    let kind = page.kind.as_str();
    let params: [&dyn ToSql; 3] = [&kind, &namespace, &name];
    let mut statement = connection.prepare_cached(sql).map_err(|error| explain(&error))?;
    let mut rows = statement.query(params).map_err(|error| explain(&error))?;
    let mut found = Documents::default();
    while let Some(row) = rows.next().map_err(|error| explain(&error))? {
        let document = match readers::document_row(row).map_err(|error| explain(&error))? {
            Ok(document) => document,
            Err(reason) => {
                let text = |column| row.get::<_, String>(column).map_err(|error| explain(&error));
                found.add_damaged(page.kind, &text(1)?, text(2)?, reason);
                continue;
            }
        };
        if page.is_full(&found.documents) {
            found.more = true;
            break;
        }
        found.documents.push(document);
    }
    Ok(found)
}
