//! Records all changes of the pods of a namespace, in the order of the API server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use parking_lot::Mutex;
use rota_telemetry::{OnExit, spawn};
use tokio::task::JoinHandle;

/// Seconds after which the API server closes a watch; it is resumed where it ended.
const WATCH_TIMEOUT_SECONDS: u32 = 290;

/// Change of one pod.
#[derive(Debug, Clone)]
struct Change {
    deleted: bool,
    pod: Pod,
}

#[derive(Debug, Default)]
struct History {
    changes: Vec<Change>,
    missed: Option<String>,
}

/// Recorded changes of the pods of a namespace.
#[derive(Debug)]
pub struct PodWatch {
    history: Arc<Mutex<History>>,
    listener: JoinHandle<()>,
}

impl PodWatch {
    /// Starts the watch. No change after the return is missed.
    pub async fn start(client: kube::Client, namespace: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let history = Arc::new(Mutex::new(History::default()));
        let mut version = match pods.list(&ListParams::default()).await {
            Ok(list) => list.metadata.resource_version.unwrap_or_default(),
            Err(error) => panic!("failed to list the pods of {namespace}: {error}"),
        };
        let shared = Arc::clone(&history);
        let listener = spawn("watched pods", OnExit::Done, async move {
            loop {
                match listen(&pods, &version, &shared).await {
                    Ok(last) => version = last,
                    // The API server may be unavailable; the watch resumes from the last version.
                    Err(Fault::Disconnected) => tokio::time::sleep(Duration::from_millis(500)).await,
                    Err(Fault::Missed(why)) => {
                        shared.lock().missed = Some(why);
                        return;
                    }
                }
            }
        });
        Self { history, listener }
    }

    fn changes(&self) -> Vec<Change> {
        let history = self.history.lock();
        assert!(history.missed.is_none(), "changes were missed: {:?}", history.missed);
        history.changes.clone()
    }

    /// Returns the existing pods, as last observed.
    pub fn now(&self) -> Vec<Pod> {
        let mut existing = BTreeMap::new();
        for change in self.changes() {
            if change.deleted {
                existing.remove(&change.pod.name_any());
            } else {
                existing.insert(change.pod.name_any(), change.pod);
            }
        }
        existing.into_values().collect()
    }

    /// Returns all pods that ever existed, as last observed.
    pub fn all(&self) -> Vec<Pod> {
        let all: BTreeMap<_, _> =
            self.changes().into_iter().map(|change| (change.pod.name_any(), change.pod)).collect();
        all.into_values().collect()
    }

    /// Returns the maximum number of pods that were active at a time.
    pub fn max_concurrent(&self) -> usize {
        let (mut active, mut max) = (BTreeMap::new(), 0);
        for Change { deleted, pod } in self.changes() {
            active.insert(pod.name_any(), !deleted && is_active(&pod));
            max = max.max(active.values().filter(|active| **active).count());
        }
        max
    }

    /// Returns deleted pods whose container did not exit with 0 before: idle workers exit on their own before deletion.
    /// A pod may run, end and be deleted before its kubelet reports anything: then its first report counts.
    pub fn forced_exits(&self) -> Vec<String> {
        let mut found = BTreeMap::new();
        for Change { deleted, pod } in self.changes() {
            let unreported = exit_code(&pod).is_none() && phase(&pod) == Some("Pending");
            if !deleted && (pod.metadata.deletion_timestamp.is_none() || unreported) {
                continue;
            }
            found.entry(pod.name_any()).or_insert_with(|| exit_code(&pod));
        }
        found
            .into_iter()
            .filter(|(_, code)| *code != Some(0))
            .map(|(name, code)| format!("{name}: {code:?}"))
            .collect()
    }

    /// Formats all changes, one per line.
    pub fn history(&self) -> String {
        let mut text = String::new();
        for Change { deleted, pod } in &self.history.lock().changes {
            let phase = phase(pod).unwrap_or("-");
            let (name, terminating) = (pod.name_any(), pod.metadata.deletion_timestamp.is_some());
            let _ = writeln!(
                text,
                "{name} phase={phase} terminating={terminating} deleted={deleted} exit={:?}",
                exit_code(pod)
            );
        }
        text
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

enum Fault {
    Disconnected,
    Missed(String),
}

async fn listen(pods: &Api<Pod>, from: &str, history: &Mutex<History>) -> Result<String, Fault> {
    let mut version = from.to_owned();
    let params = WatchParams::default().timeout(WATCH_TIMEOUT_SECONDS);
    let stream = pods.watch(&params, from).await.map_err(|_| Fault::Disconnected)?;
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let (deleted, mut pod) = match event {
            Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => (false, pod),
            Ok(WatchEvent::Deleted(pod)) => (true, pod),
            Ok(WatchEvent::Bookmark(mark)) => {
                version = mark.metadata.resource_version;
                continue;
            }
            Ok(WatchEvent::Error(status)) => return Err(Fault::Missed(status.message.clone())),
            Err(_) => return Ok(version),
        };
        version = pod.resource_version().unwrap_or_default();
        pod.metadata.managed_fields = None;
        history.lock().changes.push(Change { deleted, pod });
    }
    Ok(version)
}

/// Returns whether a pod has not terminated.
pub fn is_active(pod: &Pod) -> bool {
    !matches!(phase(pod), Some("Succeeded" | "Failed"))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Returns the seconds from a pod's creation until its container ran, if it did.
pub fn startup_seconds(pod: &Pod) -> Option<i64> {
    let ran = container(pod)?.state.as_ref()?.running.as_ref()?.started_at.clone()?;
    let made = pod.metadata.creation_timestamp.clone()?;
    Some(ran.0.as_second() - made.0.as_second())
}

fn container(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn exit_code(pod: &Pod) -> Option<i32> {
    Some(container(pod)?.state.as_ref()?.terminated.as_ref()?.exit_code)
}
