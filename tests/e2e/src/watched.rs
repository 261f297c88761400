//! Everything that happened to the pods of a namespace, in the order in which the API server tells it.

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

/// How long the API server keeps a watch open; it is opened again where it ended.
const OPEN: u32 = 290;

/// One change.
#[derive(Debug, Clone)]
struct Change {
    gone: bool,
    pod: Pod,
}

#[derive(Debug, Default)]
struct History {
    changes: Vec<Change>,
    fault: Option<String>,
}

/// The changes so far.
#[derive(Debug)]
pub struct Watched {
    history: Arc<Mutex<History>>,
    listener: JoinHandle<()>,
}

impl Watched {
    /// Listens from now on; when this returns, nothing is missed any more.
    pub async fn start(client: kube::Client, namespace: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let history = Arc::new(Mutex::new(History::default()));
        let mut version = match pods.list(&ListParams::default()).await {
            Ok(list) => list.metadata.resource_version.unwrap_or_default(),
            Err(error) => panic!("pods of {namespace} cannot be listed: {error}"),
        };
        let kept = Arc::clone(&history);
        let listener = spawn("watched pods", OnExit::Done, async move {
            loop {
                match listen(&pods, &version, &kept).await {
                    Ok(last) => version = last,
                    // The API server may be away; what was seen is not asked for again.
                    Err(Fault::Away) => tokio::time::sleep(Duration::from_millis(500)).await,
                    Err(Fault::Missed(why)) => {
                        kept.lock().fault = Some(why);
                        return;
                    }
                }
            }
        });
        Self { history, listener }
    }

    fn changes(&self) -> Vec<Change> {
        let history = self.history.lock();
        assert!(history.fault.is_none(), "changes were missed: {:?}", history.fault);
        history.changes.clone()
    }

    /// The pods that there are now, as last seen.
    pub fn now(&self) -> Vec<Pod> {
        let mut there = BTreeMap::new();
        for change in self.changes() {
            if change.gone {
                there.remove(&change.pod.name_any());
            } else {
                there.insert(change.pod.name_any(), change.pod);
            }
        }
        there.into_values().collect()
    }

    /// All that ever were, as last seen.
    pub fn ever(&self) -> Vec<Pod> {
        let all: BTreeMap<_, _> =
            self.changes().into_iter().map(|change| (change.pod.name_any(), change.pod)).collect();
        all.into_values().collect()
    }

    /// The largest number of pods that were there at once and had not ended.
    pub fn most(&self) -> usize {
        let (mut there, mut most) = (BTreeMap::new(), 0);
        for Change { gone, pod } in self.changes() {
            there.insert(pod.name_any(), !gone && is_there(&pod));
            most = most.max(there.values().filter(|there| **there).count());
        }
        most
    }

    /// The pods that were told to go while their container ran: a worker that is not busy ends by itself
    /// first, with 0.
    pub fn ended_by_force(&self) -> Vec<String> {
        let mut found = BTreeMap::new();
        for Change { gone, pod } in self.changes() {
            if pod.metadata.deletion_timestamp.is_none() && !gone {
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

    /// What happened, a line each, for people.
    pub fn story(&self) -> String {
        let mut text = String::new();
        for Change { gone, pod } in &self.history.lock().changes {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("-");
            let (name, leaving) = (pod.name_any(), pod.metadata.deletion_timestamp.is_some());
            let _ = writeln!(
                text,
                "{name} phase={phase} leaving={leaving} gone={gone} exit={:?}",
                exit_code(pod)
            );
        }
        text
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

enum Fault {
    Away,
    Missed(String),
}

async fn listen(pods: &Api<Pod>, from: &str, history: &Mutex<History>) -> Result<String, Fault> {
    let mut version = from.to_owned();
    let params = WatchParams::default().timeout(OPEN);
    let stream = pods.watch(&params, from).await.map_err(|_| Fault::Away)?;
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let (gone, mut pod) = match event {
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
        history.lock().changes.push(Change { gone, pod });
    }
    Ok(version)
}

/// Whether a pod still counts: it has not ended.
pub fn is_there(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Seconds from a pod's creation until its container ran; `None` when it did not.
pub fn age_of(pod: &Pod) -> Option<i64> {
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
