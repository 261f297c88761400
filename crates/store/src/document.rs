//! Documents: named, versioned records of low rate, such as schedules. Their payloads are opaque to the store.

use bytes::Bytes;
use rota_core::{Namespace, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Kind of a document. Names are unique within a kind and a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DocumentKind {
    Schedule,
    /// Runs and position of a schedule, which change more often than the schedule.
    ScheduleStatus,
    Template,
    /// One version of a template.
    TemplateVersion,
    /// Up to where a receiver of notifications has everything. Belongs to no namespace, and has the default one.
    NotificationPosition,
    /// Which key the secrets in the store are sealed under. There is one.
    SecretKey,
    /// Kind of the tasks of a namespace.
    TaskKind,
    /// Record of a token of workers, which is valid as long as it exists.
    WorkerToken,
    /// Runs of control planes on the store. There is one.
    Runs,
    /// What the metrics were in a minute or an hour. Belongs to no namespace, and has the default one.
    MetricsHistory,
    /// Session of a browser, which is valid as long as it exists. Belongs to no namespace, and has the default one.
    BrowserSession,
}

impl DocumentKind {
    /// Returns the kind as it is stored, which is also its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::ScheduleStatus => "schedule status",
            Self::Template => "template",
            Self::TemplateVersion => "template version",
            Self::NotificationPosition => "notification position",
            Self::SecretKey => "secret key",
            Self::TaskKind => "task kind",
            Self::WorkerToken => "worker token",
            Self::Runs => "runs",
            Self::MetricsHistory => "metrics history",
            Self::BrowserSession => "browser session",
        }
    }
}

impl std::fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentKey {
    pub kind: DocumentKind,
    pub namespace: Namespace,
    pub name: String,
}

impl std::fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub key: DocumentKey,
    /// Identity: a document that is created again under the name of a deleted one has another.
    pub uid: Uuid,
    /// Number of the document's contents: 1 for the first, and one more with each change.
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub payload: Bytes,
}

impl Document {
    /// Returns the state of the document that a compare-and-set names.
    pub fn expected(&self) -> Expected {
        Expected::Version(self.uid, self.version)
    }
}

/// State of a document on which a command depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Any,
    Absent,
    /// The document of this identity, unchanged since this version.
    Version(Uuid, u64),
}

/// Creation or replacement of a document. Equal contents change nothing.
#[derive(Debug, Clone)]
pub struct PutDocument {
    pub key: DocumentKey,
    pub payload: Bytes,
    pub expected: Expected,
}

/// Bound of a list of documents of one kind, by namespace and name.
#[derive(Debug, Clone)]
pub struct DocumentsPage {
    pub kind: DocumentKind,
    /// All namespaces if it is `None`.
    pub namespace: Option<Namespace>,
    /// Only documents after this one.
    pub after: Option<(Namespace, String)>,
    pub limit: usize,
    /// Bytes of payloads after which the page ends. It has one document at least, if there is any.
    pub bytes: usize,
}

impl DocumentsPage {
    /// Whether a page with these documents takes no more.
    pub fn is_full(&self, documents: &[Document]) -> bool {
        let bytes: usize = documents.iter().map(|document| document.payload.len()).sum();
        documents.len() >= self.limit || (bytes >= self.bytes && !documents.is_empty())
    }
}

impl Documents {
    /// Adds one that cannot be decoded, by the columns of its row.
    pub fn add_damaged(&mut self, kind: DocumentKind, namespace: &str, name: String, reason: String) {
        let key = namespace.parse().map(|namespace| DocumentKey { kind, namespace, name });
        self.damaged.extend(key.ok().map(|key| (key, reason)));
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documents {
    pub documents: Vec<Document>,
    /// Those between them that cannot be decoded, with the reason.
    pub damaged: Vec<(DocumentKey, String)>,
    pub more: bool,
}
