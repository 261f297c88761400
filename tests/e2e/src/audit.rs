//! Requests to the API server, from its audit log: a line of JSON for every answered request.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

use crate::procfs::audit_log;

/// Audit log from a position on.
#[derive(Debug)]
pub struct Audit {
    file: PathBuf,
    from: u64,
}

/// Request to the API server.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// `get`, `create`, `patch`, …
    pub verb: String,
    pub user: User,
    #[serde(default)]
    pub object_ref: Object,
}

/// Client of a request.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// `system:serviceaccount:…`
    pub username: String,
}

/// Object of a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Object {
    /// `pods`, `tasks`, …
    #[serde(default)]
    pub resource: String,
    /// `status`, `scale`, `eviction`, …
    #[serde(default)]
    pub subresource: String,
    #[serde(default)]
    pub namespace: String,
}

impl Call {
    /// Returns whether the request modifies objects.
    pub fn writes(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Returns verb and resource, such as `patch tasks/status`.
    pub fn kind(&self) -> String {
        let Object { resource, subresource, .. } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {resource}{slash}{subresource}", self.verb)
    }
}

impl Audit {
    /// Starts at the end of the log. Returns `None` if the cluster runs elsewhere, which fails in CI.
    pub fn start() -> Option<Self> {
        let file = PathBuf::from(audit_log()?);
        match std::fs::metadata(&file) {
            Ok(log) => Some(Self { from: log.len(), file }),
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }

    /// Returns the requests since the start.
    pub fn calls(&self) -> Vec<Call> {
        let mut file = match std::fs::File::open(&self.file) {
            Ok(file) => file,
            Err(error) => panic!("{}: {error}", self.file.display()),
        };
        if let Err(error) = file.seek(SeekFrom::Start(self.from)) {
            panic!("{}: {error}", self.file.display());
        }
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        // The last line may be incomplete, and some requests concern no object.
        lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }
}
