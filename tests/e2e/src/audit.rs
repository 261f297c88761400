//! What the API server was asked, from its audit log: a line of JSON for every answered request.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// The log, from where it stood.
#[derive(Debug)]
pub struct Audit {
    file: PathBuf,
    from: u64,
}

/// One request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// `get`, `create`, `patch`, …
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// What for.
    #[serde(default)]
    pub object_ref: Object,
}

/// Who asked.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// `system:serviceaccount:…`
    pub username: String,
}

/// What a request was for.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Object {
    /// `pods`, `tasks`, …
    #[serde(default)]
    pub resource: String,
    /// `status`, `scale`, `eviction`, …
    #[serde(default)]
    pub subresource: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
}

impl Call {
    /// Whether it changed something.
    pub fn writes(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Verb and what for, in a word.
    pub fn kind(&self) -> String {
        let Object { resource, subresource, .. } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {resource}{slash}{subresource}", self.verb)
    }
}

impl Audit {
    /// From now on; `None` where the cluster does not let us see it.
    pub fn start() -> Option<Self> {
        let file = PathBuf::from(rota_telemetry::env::var_os("ROTA_CLUSTER_AUDIT")?);
        let from = std::fs::metadata(&file).ok()?.len();
        Some(Self { file, from })
    }

    /// What was asked since then.
    pub fn calls(&self) -> Vec<Call> {
        let mut file = match std::fs::File::open(&self.file) {
            Ok(file) => file,
            Err(error) => panic!("{}: {error}", self.file.display()),
        };
        if let Err(error) = file.seek(SeekFrom::Start(self.from)) {
            panic!("{}: {error}", self.file.display());
        }
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        // The last line may be half written, and some requests are about no object.
        lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }
}
