//! Parts that lists refer to and the storage does not have: they were removed there, or the store was restored from a backup, and the
//! storage was not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rota_artifacts::Digest;
use rota_core::{TaskKey, Timestamp};
use rota_proto::{causes, names};
use rota_store::Filter;

use super::Artifacts;
use crate::clock::now;
use crate::health::{Cause, State};
use crate::wire::time::rfc3339;

const HINT: &str = "restore the storage of artifacts from its backup, or delete the tasks; downloads of these files fail, and work that needs them is done again";

/// Tasks that are looked up by one read of the store.
const LOOKED_UP: usize = 256;

/// What the last comparison has found, by the name of the namespace: empty for what workflows have taken over. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost(Arc<Mutex<BTreeMap<String, Found>>>);

/// What is lost of a task.
#[derive(Default)]
struct OfTask {
    parts: HashSet<Digest>,
    files: usize,
    first: String,
}

#[derive(Debug)]
struct Found {
    since: Timestamp,
    parts: usize,
    files: usize,
    /// The first of the files, and its task.
    example: String,
}

impl Lost {
    fn set(&self, mut found: BTreeMap<String, Found>) {
        let mut last = self.0.lock();
        for (subject, found) in &mut found {
            found.since = last.get(subject).map_or(found.since, |last| last.since);
        }
        *last = found;
    }

    /// Returns a cause for each namespace of which something is lost.
    pub(super) fn causes(&self) -> Vec<Cause> {
        self.0.lock().iter().map(|(subject, found)| found.cause(subject)).collect()
    }

    /// Returns how many parts are lost of each namespace.
    pub(super) fn parts(&self) -> Vec<(String, usize)> {
        let of = |subject: &str| subject.strip_prefix("namespaces/").unwrap_or_default().to_owned();
        self.0.lock().iter().map(|(subject, found)| (of(subject), found.parts)).collect()
    }
}

impl Found {
    fn cause(&self, subject: &str) -> Cause {
        let Self { since, parts, files, example } = self;
        let message = format!(
            "{parts} parts of {files} files are lost, such as {example}: records name them, and the storage of artifacts does not have them, as was \
             noticed {}",
            rfc3339(*since)
        );
        let (code, subject) = (causes::ARTIFACTS_LOST, subject.to_owned());
        Cause { state: State::Degraded, code, subject, message, hint: HINT.to_owned() }
    }
}

impl Artifacts {
    /// Compares the lists with the storage. Returns how many parts are lost.
    pub(super) async fn find_lost(&self) -> Result<usize, String> {
        let stored = self.parts.stored().await.map_err(|error| error.to_string())?;
        let (mut missing, mut parts) = (Vec::new(), HashSet::new());
        self.each_list(|key, list| {
            for artifact in &list.artifacts {
                let of_file = artifact.parts.iter().filter_map(|part| Digest::try_from(&part[..]).ok());
                let of_file: Vec<_> = of_file.filter(|part| !stored.contains(part)).collect();
                if !of_file.is_empty() {
                    parts.extend(&of_file);
                    missing.push((key.task, artifact.name.clone(), of_file));
                }
            }
        })
        .await?;
        drop(stored);
        // A part is stored before its list: what is still missing is not on its way.
        let lost = match parts.is_empty() {
            true => parts,
            false => self.parts.absent(parts).await.map_err(|error| error.to_string())?,
        };
        let mut tasks = BTreeMap::<TaskKey, OfTask>::new();
        for (task, name, mut of_file) in missing {
            of_file.retain(|part| lost.contains(part));
            if of_file.is_empty() {
                continue;
            }
            let of_task = tasks.entry(task).or_insert_with(|| OfTask { first: name, ..OfTask::default() });
            of_task.parts.extend(of_file);
            of_task.files += 1;
        }
        self.lost.set(self.by_namespace(tasks).await?);
        Ok(lost.len())
    }

    async fn by_namespace(
        &self,
        tasks: BTreeMap<TaskKey, OfTask>,
    ) -> Result<BTreeMap<String, Found>, String> {
        let mut found = BTreeMap::<String, (HashSet<Digest>, Found)>::new();
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let some: Vec<_> = tasks.by_ref().take(LOOKED_UP).collect();
            let known = self.names(some.iter().map(|(key, _)| *key).collect()).await?;
            for (key, OfTask { parts, files, first }) in some {
                let (subject, task) = known
                    .get(&key)
                    .cloned()
                    .unwrap_or_else(|| (String::new(), "a workflow, which has taken it over".to_owned()));
                let (all, of_namespace) = found.entry(subject).or_insert_with(|| {
                    let example = format!("{first} of {task}");
                    (HashSet::new(), Found { since: now(), parts: 0, files: 0, example })
                });
                all.extend(parts);
                of_namespace.files += files;
            }
        }
        let found = found.into_iter();
        Ok(found.map(|(subject, (all, found))| (subject, Found { parts: all.len(), ..found })).collect())
    }

    /// Returns the names of the namespaces of tasks, and the tasks in words. Those that a workflow has taken over are not among them.
    async fn names(&self, keys: Vec<TaskKey>) -> Result<BTreeMap<TaskKey, (String, String)>, String> {
        let mut filter = Filter { limit: keys.len(), keys: Some(keys), ..Filter::default() };
        let mut named = BTreeMap::new();
        loop {
            let page = self.store.reads().list(filter.clone()).await.map_err(|error| error.to_string())?;
            for task in page.tasks {
                let name = task.alias.clone().unwrap_or_else(|| task.id.to_string());
                let words = format!("task {name} of namespace {}", task.namespace);
                named.insert(task.key, (names::namespace(task.namespace.as_str()), words));
            }
            filter.before = page.next;
            if page.next.is_none() {
                return Ok(named);
            }
        }
    }
}
