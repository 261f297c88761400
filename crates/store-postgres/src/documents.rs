//! Documents: named, versioned records of low rate.

use rota_store::{Document, DocumentKey, Documents, DocumentsPage, Error, Stored};
use tokio_postgres::types::ToSql;

use crate::Admission;
use crate::errors::Fault;
use crate::loads::pair;
use crate::readers::Loan;
use crate::rows::{self, SHARD};
use crate::session::Session;
use crate::sql;

/// Documents that one statement returns. Their payloads may be large.
const CHUNK: usize = 64;

/// Reads the documents that a batch needs.
pub(crate) async fn load(
    session: &Session,
    wanted: &[DocumentKey],
) -> Result<Vec<(DocumentKey, Stored<Document>)>, Fault> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let kinds: Vec<_> = wanted.iter().map(|key| key.kind.as_str()).collect();
    let namespaces: Vec<_> = wanted.iter().map(|key| key.namespace.as_str()).collect();
    let names: Vec<_> = wanted.iter().map(|key| &key.name[..]).collect();
    let rows = session.query(sql::LOAD_DOCUMENTS, &[&SHARD, &kinds, &namespaces, &names]).await?;
    pair(wanted, &rows, |row| rows::record(row, 1))
}

pub(crate) async fn get(loan: &Loan, key: &DocumentKey) -> Result<Option<Document>, Fault> {
    let DocumentKey { kind, namespace, name } = key;
    let rows = loan.query(sql::DOCUMENT, &[&SHARD, &kind.as_str(), &namespace.as_str(), name]).await?;
    let found: Option<Stored<Document>> = rows.first().map(|row| rows::record(row, 0)).transpose()?;
    found.transpose().map_err(|reason| Error::Corrupt(reason).into())
}

/// Checks what a control plane requires of a document. Returns whether it exists.
pub(crate) async fn admit(session: &Session, admission: &Admission) -> Result<bool, Fault> {
    let DocumentKey { kind, namespace, name } = &admission.document;
    let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &kind.as_str(), &namespace.as_str(), name];
    let row = session.client.query_opt(sql::DOCUMENT, params).await?;
    let found: Option<Stored<Document>> = row.map(|row| rows::record(&row, 0)).transpose()?;
    let found = found.transpose().map_err(Error::Corrupt)?;
    (admission.check)(found.as_ref())?;
    Ok(found.is_some())
}

/// Reads a page of documents. One that cannot be decoded is missing from it, and does not hide the others.
pub(crate) async fn page(loan: &Loan, page: &DocumentsPage) -> Result<Documents, Fault> {
    let (namespace, name) =
        page.after.as_ref().map_or(("", ""), |(namespace, name)| (namespace.as_str(), name.as_str()));
    let (sql, namespace, name) = match &page.namespace {
        None => (sql::DOCUMENTS, namespace, name),
        // A position in another namespace is before, or after, all of this one.
        Some(wanted) if namespace > wanted.as_str() => return Ok(Documents::default()),
        Some(wanted) if namespace == wanted.as_str() => (sql::DOCUMENTS_NAMESPACE, namespace, name),
        Some(wanted) => (sql::DOCUMENTS_NAMESPACE, wanted.as_str(), ""),
    };
    let (kind, limit) = (page.kind.as_str(), i64::try_from(CHUNK).unwrap_or(i64::MAX));
    let mut after = (namespace.to_owned(), name.to_owned());
    let mut found = Documents::default();
    loop {
        let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &kind, &after.0, &after.1, &limit];
        let rows = loan.query(sql, params).await?;
        for row in &rows {
            after = (rows::get(row, 0)?, rows::get(row, 1)?);
            let document = match rows::record::<Document>(row, 2)? {
                Ok(document) => document,
                Err(reason) => {
                    found.add_damaged(page.kind, &after.0, after.1.clone(), reason);
                    continue;
                }
            };
            if page.is_full(&found.documents) {
                found.more = true;
                return Ok(found);
            }
            found.documents.push(document);
        }
        if rows.len() < CHUNK {
            return Ok(found);
        }
    }
}
