//! Texts of tasks, for the full-text index and for what a hit shows: title, prompt, text of the result, message of the failure. Must not
//! know words.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use rota_core::TaskKey;
use rota_core::task::Task;
use rota_proto::v1;
use rota_store::{Error, Store, TaskBody};

/// Bytes of specs, and of results, that one call reads, and of one more each.
const READ_BYTES: u64 = 8 << 20;

/// Texts of a task in which words are searched.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) title: String,
    pub(crate) prompt: String,
    pub(crate) result: String,
    pub(crate) failure: String,
}

impl Texts {
    fn of(task: &Task, spec: Option<&Bytes>, result: Option<&Bytes>) -> Self {
        let spec = spec.and_then(|bytes| v1::TaskSpec::decode(&bytes[..]).ok()).unwrap_or_default();
        let result = result.and_then(|bytes| v1::TaskResult::decode(&bytes[..]).ok()).unwrap_or_default();
        let failure = task.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
        Self { title: task.title.clone(), prompt: spec.prompt, result: result.text, failure }
    }
}

/// Calls a function with each of some tasks and its texts, on a thread that may block: of as many tasks, from the first on, as have about
/// [`READ_BYTES`], and of one at least. Returns what it has returned.
pub(crate) async fn with_texts<T: Send + 'static>(
    store: &dyn Store,
    mut tasks: Vec<Task>,
    call: impl Fn(&Task, Texts) -> T + Send + 'static,
) -> Result<Vec<T>, Error> {
    let keys: Vec<_> = tasks.iter().map(|task| task.key).collect();
    let specs = store.bodies(TaskBody::Payload, keys, READ_BYTES).await?;
    tasks.truncate(covered(&tasks, &specs, |_| true));
    let keys: Vec<_> = tasks.iter().filter(|task| task.has_result).map(|task| task.key).collect();
    let results =
        if keys.is_empty() { Vec::new() } else { store.bodies(TaskBody::Result, keys, READ_BYTES).await? };
    tasks.truncate(covered(&tasks, &results, |task| task.has_result));
    let call_all = move || {
        let (specs, results): (HashMap<_, _>, HashMap<_, _>) =
            (specs.into_iter().collect(), results.into_iter().collect());
        let call = |task| call(task, Texts::of(task, specs.get(&task.key), results.get(&task.key)));
        tasks.iter().map(call).collect()
    };
    tokio::task::spawn_blocking(call_all).await.map_err(|_| Error::Closed)
}

/// Returns how many tasks, from the first on, bodies were read of, if they have any.
fn covered(tasks: &[Task], bodies: &[(TaskKey, Bytes)], has: impl Fn(&Task) -> bool) -> usize {
    let size: u64 = bodies.iter().map(|(_, body)| body.len() as u64).sum();
    let last = bodies.last().map(|(key, _)| *key);
    match tasks.iter().position(|task| Some(task.key) == last) {
        // The read has ended there because of its bytes: the next task that has a body was not read.
        Some(last) if size >= READ_BYTES => {
            let next = tasks[last + 1..].iter().position(has);
            next.map_or(tasks.len(), |next| last + 1 + next)
        }
        _ => tasks.len(),
    }
}
