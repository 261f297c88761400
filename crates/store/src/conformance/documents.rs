//! Documents: compare-and-set, identity, publication, pages.

use bytes::Bytes;
use uuid::Uuid;

use super::harness::{Harness, make, namespace};
use crate::{
    Command, Document, DocumentKey, DocumentKind, DocumentsPage, Expected, PutDocument, Refused, Reply,
};

const KIND: DocumentKind = DocumentKind::Schedule;

fn key_in(space: &str, name: &str) -> DocumentKey {
    DocumentKey { kind: KIND, namespace: namespace(space), name: name.to_owned() }
}

fn key(name: &str) -> DocumentKey {
    key_in("n", name)
}

fn put(key: DocumentKey, payload: &str, expected: Expected) -> Command {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Command::PutDocument(PutDocument { key, payload, expected })
}

fn delete(key: DocumentKey, expected: Expected) -> Command {
    Command::DeleteDocument(key, expected)
}

fn document(reply: Result<Reply, Refused>) -> Document {
    match reply {
        Ok(Reply::Document(document)) => Document::clone(&document),
        other => panic!("no document: {other:?}"),
    }
}

async fn stored(t: &mut Harness, name: &str, payload: &str, expected: Expected) -> Document {
    document(t.one(put(key(name), payload, expected)).await)
}

async fn read(t: &Harness, name: &str) -> Option<Document> {
    t.store.document(key(name)).await.unwrap()
}

pub async fn documents_are_created_replaced_and_deleted(t: &mut Harness) {
    let first = stored(t, "a", "one", Expected::Absent).await;
    assert_eq!((first.version, first.created_at, &first.payload[..]), (1, t.now(), &b"one"[..]));
    let again = t.one(put(key("a"), "two", Expected::Absent)).await;
    assert_eq!(again.unwrap_err(), Refused::DocumentExists(key("a")));
    t.later(std::time::Duration::from_secs(1));
    let second = stored(t, "a", "two", first.expected()).await;
    assert_eq!((second.version, second.uid, second.created_at), (2, first.uid, first.created_at));
    assert_eq!(second.updated_at, t.now());
    t.reopen().await;
    assert_eq!(read(t, "a").await, Some(second.clone()));
    // Equal contents are no change.
    assert_eq!(stored(t, "a", "two", Expected::Any).await, second);
    assert_eq!(stored(t, "a", "three", Expected::Any).await.version, 3);
    assert!(t.one(delete(key("a"), Expected::Any)).await.is_ok());
    assert_eq!(read(t, "a").await, None);
    let missing = t.one(delete(key("a"), Expected::Any)).await;
    assert_eq!(missing.unwrap_err(), Refused::NoDocument(key("a")));
}

pub async fn stale_versions_change_nothing(t: &mut Harness) {
    let first = stored(t, "a", "one", Expected::Absent).await;
    let second = stored(t, "a", "two", first.expected()).await;
    let stale = t.one(put(key("a"), "three", first.expected())).await;
    assert_eq!(stale.unwrap_err(), Refused::DocumentChanged(key("a")));
    let stale = t.one(delete(key("a"), first.expected())).await;
    assert_eq!(stale.unwrap_err(), Refused::DocumentChanged(key("a")));
    assert_eq!(read(t, "a").await, Some(second.clone()));
    // In one batch, each command sees those before it.
    let both =
        t.batch(vec![put(key("a"), "x", second.expected()), put(key("a"), "y", second.expected())]).await;
    assert_eq!(both[1].as_ref().unwrap_err(), &Refused::DocumentChanged(key("a")));
    assert_eq!(read(t, "a").await.unwrap().payload, "x");
}

pub async fn recreated_document_has_another_identity(t: &mut Harness) {
    let old = stored(t, "a", "one", Expected::Absent).await;
    let replies =
        t.batch(vec![delete(key("a"), old.expected()), put(key("a"), "one", Expected::Absent)]).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    let new = read(t, "a").await.unwrap();
    assert_eq!(new.version, 1);
    assert_ne!(new.uid, old.uid);
    let stale = t.one(put(key("a"), "two", old.expected())).await;
    assert_eq!(stale.unwrap_err(), Refused::DocumentChanged(key("a")));
    let none = t.one(put(key("b"), "two", Expected::Version(Uuid::nil(), 1))).await;
    assert_eq!(none.unwrap_err(), Refused::NoDocument(key("b")));
}

pub async fn changes_are_published_in_order(t: &mut Harness) {
    let first = stored(t, "a", "one", Expected::Absent).await;
    let batch = vec![
        put(key("a"), "two", Expected::Any),
        put(key("a"), "two", Expected::Any),
        put(key("b"), "one", Expected::Absent),
        delete(key("a"), Expected::Any),
        put(key("a"), "new", Expected::Absent),
    ];
    t.batch(batch).await;
    let seen = t
        .commits
        .last()
        .unwrap()
        .documents
        .iter()
        .map(|change| (change.document.key.name.as_str(), change.document.version, change.deleted));
    let seen: Vec<_> = seen.collect();
    assert_eq!(seen, [("a", 2, false), ("b", 1, false), ("a", 2, true), ("a", 1, false)]);
    let last = t.commits.last().unwrap();
    assert!(last.changes_records() && last.documents[2].document.uid == first.uid);
    // A reader that applies the changes in order has what is stored.
    assert_eq!(read(t, "a").await.as_ref(), last.documents.last().map(|change| &*change.document));
}

pub async fn pages_are_bounded_and_complete(t: &mut Harness) {
    for (space, name) in [("m", "z"), ("n", "a"), ("n", "b"), ("n", "c"), ("o", "a")] {
        document(t.one(put(key_in(space, name), "0123456789", Expected::Absent)).await);
    }
    let other = DocumentKey { kind: DocumentKind::Template, ..key("other") };
    document(t.one(put(other, "x", Expected::Absent)).await);
    let all = DocumentsPage { kind: KIND, namespace: None, after: None, limit: 2, bytes: usize::MAX };
    let (mut page, mut names) = (all.clone(), Vec::new());
    loop {
        let found = t.store.documents(page.clone()).await.unwrap();
        names.extend(found.documents.iter().map(|one| format!("{}/{}", one.key.namespace, one.key.name)));
        assert!(found.documents.len() <= 2);
        let last = found.documents.last().map(|one| (one.key.namespace.clone(), one.key.name.clone()));
        if !found.more {
            break;
        }
        page.after = last;
    }
    assert_eq!(names, ["m/z", "n/a", "n/b", "n/c", "o/a"]);
    let of = async |page: DocumentsPage| {
        let found = t.store.documents(page).await.unwrap();
        let names: Vec<_> = found.documents.into_iter().map(|one| one.key.name).collect();
        (names.concat(), found.more)
    };
    let own = DocumentsPage { namespace: Some(namespace("n")), limit: 9, ..all };
    assert_eq!(of(own.clone()).await, ("abc".to_owned(), false));
    let after = Some((namespace("n"), "a".to_owned()));
    assert_eq!(of(DocumentsPage { after, ..own.clone() }).await, ("bc".to_owned(), false));
    assert_eq!(of(DocumentsPage { bytes: 15, ..own.clone() }).await, ("ab".to_owned(), true));
    assert_eq!(of(DocumentsPage { bytes: 0, ..own.clone() }).await, ("a".to_owned(), true));
    let before = Some((namespace("m"), "z".to_owned()));
    assert_eq!(of(DocumentsPage { after: before, ..own.clone() }).await.0, "abc");
    let later = Some((namespace("o"), "a".to_owned()));
    assert_eq!(of(DocumentsPage { after: later, ..own }).await, (String::new(), false));
}

pub async fn dry_run_stores_no_document(t: &mut Harness) {
    let batch = || vec![put(key("a"), "one", Expected::Absent), put(key("a"), "one", Expected::Absent)];
    let predicted = t.store.dry_run(batch()).await.unwrap();
    assert!(predicted[0].is_ok());
    assert_eq!(predicted[1].as_ref().unwrap_err(), &Refused::DocumentExists(key("a")));
    assert_eq!(read(t, "a").await, None);
    assert_eq!(document(t.batch(batch()).await.remove(0)).version, 1);
}

pub async fn document_and_task_share_a_commit(t: &mut Harness) {
    t.agent("a").await;
    let task = t.task();
    let id = task.task.id;
    let before = t.commits.len();
    t.batch(vec![make(task), put(key("a"), "one", Expected::Absent)]).await;
    let commits: Vec<_> = t.commits[before..].iter().filter(|commit| commit.changes_records()).collect();
    assert_eq!(commits.len(), 1);
    assert_eq!((commits[0].tasks[0].task.id, commits[0].documents.len()), (id, 1));
}
