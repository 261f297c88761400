//! Parts that lists refer to and the storage does not have: they were removed there, or the store was restored from a backup, and the
//! storage was not.

use std::sync::Arc;

use parking_lot::Mutex;
use rota_artifacts::Digest;
use rota_core::{TaskKey, Timestamp};
use rota_proto::causes;
use rota_store::Filter;

use super::Artifacts;
use crate::clock::now;
use crate::health::{Cause, State};
use crate::wire::time::rfc3339;

const HINT: &str = "restore the storage of artifacts from its backup, or delete the tasks; downloads of these files fail, and work that needs them is done again";

/// What the last comparison has found. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost(Arc<Mutex<Option<Found>>>);

#[derive(Debug)]
struct Found {
    since: Timestamp,
    parts: usize,
    files: usize,
    /// The first of the files, and its task.
    example: String,
}

impl Lost {
    fn set(&self, found: Option<Found>) {
        let mut last = self.0.lock();
        let since = last.as_ref().map(|last| last.since);
        *last = found.map(|found| Found { since: since.unwrap_or(found.since), ..found });
    }

    /// Returns the cause while something is lost.
    pub(super) fn cause(&self) -> Option<Cause> {
        let found = self.0.lock();
        let Found { since, parts, files, example } = found.as_ref()?;
        let message = format!(
            "{parts} parts of {files} files are lost, such as {example}: records name them, and the storage of artifacts does not have them, as was \
             noticed {}",
            rfc3339(*since)
        );
        let (code, subject) = (causes::ARTIFACTS_LOST, String::new());
        Some(Cause { state: State::Degraded, code, subject, message, hint: HINT.to_owned() })
    }
}

impl Artifacts {
    /// Compares the lists with the storage. Returns how many parts are lost.
    pub(super) async fn find_lost(&self) -> Result<usize, String> {
        // First: a part is stored before its list.
        let referenced = self.referenced().await?;
        let lost = self.parts.absent(referenced).await.map_err(|error| error.to_string())?;
        if lost.is_empty() {
            self.lost.set(None);
            return Ok(0);
        }
        let (mut files, mut first) = (0, None);
        self.each_list(|key, list| {
            for artifact in &list.artifacts {
                let is_lost =
                    |part: &Vec<u8>| Digest::try_from(&part[..]).is_ok_and(|part| lost.contains(&part));
                if artifact.parts.iter().any(is_lost) {
                    files += 1;
                    first.get_or_insert_with(|| (key.task, artifact.name.clone()));
                }
            }
        })
        .await?;
        // Their tasks may have been removed meanwhile.
        let Some((task, name)) = first else {
            self.lost.set(None);
            return Ok(0);
        };
        let example = format!("{name} of {}", self.describe(task).await?);
        self.lost.set(Some(Found { since: now(), parts: lost.len(), files, example }));
        Ok(lost.len())
    }

    async fn describe(&self, key: TaskKey) -> Result<String, String> {
        let filter = Filter { keys: Some(vec![key]), limit: 1, ..Filter::default() };
        let mut found = self.store.reads().list(filter).await.map_err(|error| error.to_string())?;
        Ok(match found.tasks.pop() {
            Some(task) => {
                let name = task.alias.clone().unwrap_or_else(|| task.id.to_string());
                format!("task {name} of namespace {}", task.namespace)
            }
            None => "a workflow, which has taken it over".to_owned(),
        })
    }
}
