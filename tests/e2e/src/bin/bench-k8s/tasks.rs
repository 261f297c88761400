//! Task objects, from the request that makes them to their terminal status.

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use rota_crds::resource::{Task, TaskPhase};
use rota_e2e::{Control, client};
use rota_telemetry::{OnExit, clock, spawn};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(120);

/// When what happened to one, in microseconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    pub name: String,
    /// The request went out.
    pub asked: i64,
    /// The API server has answered it.
    pub stored: i64,
    /// The agent's first byte, by the worker's clock.
    pub first: i64,
    /// A watch told of the terminal status.
    pub terminal: i64,
}

/// Tasks of a namespace that have ended, and when that was heard of.
pub(crate) struct Seen {
    tasks: Api<Task>,
    ended: watch::Receiver<HashMap<String, i64>>,
    listener: JoinHandle<()>,
}

impl Seen {
    pub(crate) async fn start(namespace: &str) -> Self {
        let tasks: Api<Task> = Api::namespaced(client().await, namespace);
        let (sender, ended) = watch::channel(HashMap::new());
        let mut changes =
            Box::pin(watcher(tasks.clone(), watcher::Config::default()).default_backoff().touched_objects());
        let listener = spawn("tasks that end", OnExit::Done, async move {
            while let Some(change) = changes.next().await {
                let Ok(task) = change else { continue };
                let phase = task.status.as_ref().map(|status| status.phase).unwrap_or_default();
                if matches!(phase, TaskPhase::Succeeded | TaskPhase::Failed) {
                    sender.send_modify(|ended| {
                        ended.entry(task.name_any()).or_insert_with(clock::unix_micros);
                    });
                }
            }
        });
        Self { tasks, ended, listener }
    }

    /// Makes one and waits for its end.
    pub(crate) async fn run(&self, name: &str) -> Times {
        let task: Task = serde_json::from_value(json!({
            "apiVersion": "rota.dev/v1alpha1", "kind": "Task",
            "metadata": {"name": name},
            "spec": {
                "agent": "actor",
                "runtime": {"scripted": {"steps": [{"output": "first"}, {"succeed": "done"}]}},
            },
        }))
        .unwrap();
        let asked = clock::unix_micros();
        self.tasks.create(&PostParams::default(), &task).await.unwrap();
        let stored = clock::unix_micros();
        let mut ended = self.ended.clone();
        let has = tokio::time::timeout(LIMIT, ended.wait_for(|ended| ended.contains_key(name))).await;
        let terminal = has.expect("it does not end").unwrap()[name];
        Times { name: name.to_owned(), asked, stored, first: 0, terminal }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Many at once: microseconds from the first request to the last end.
pub(crate) async fn burst(seen: &Seen, count: usize) -> i64 {
    let all: Vec<_> = stream::iter(0..count)
        .map(|number| async move { seen.run(&format!("burst-{number}")).await })
        .buffer_unordered(count)
        .collect()
        .await;
    let (first, last) = (all.iter().map(|one| one.asked).min(), all.iter().map(|one| one.terminal).max());
    last.unwrap_or_default() - first.unwrap_or_default()
}

/// Fills in when the agents said something.
pub(crate) async fn first_bytes(control: &Control, namespace: &str, all: &mut [Times]) {
    for one in all {
        let log = control.rota(&format!("logs {} --namespace {namespace} -o jsonl", one.name)).await.good();
        let entries = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let first = entries.into_iter().find(|entry| entry.get("output").is_some()).expect("it said nothing");
        let at: jiff::Timestamp = first["time"].as_str().unwrap().parse().unwrap();
        one.first = at.as_microsecond();
    }
}
