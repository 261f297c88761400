//! Time at which objects of a kind were first observed to have finished, from their watch.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use rota_telemetry::{OnExit, clock, spawn};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No run may take longer.
const TEST_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Ends {
    at: Mutex<HashMap<String, i64>>,
    changed: Notify,
}

/// The ends so far.
pub(crate) struct Seen {
    ends: Arc<Ends>,
    listener: JoinHandle<()>,
}

impl Seen {
    pub(crate) async fn start<K>(objects: Api<K>, ended: fn(&K) -> bool) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let ends = Arc::new(Ends::default());
        let kept = Arc::clone(&ends);
        let mut version =
            objects.list(&ListParams::default().limit(1)).await.unwrap().metadata.resource_version.unwrap();
        let listener = spawn("bench watch", OnExit::Done, async move {
            loop {
                let stream = objects.watch(&WatchParams::default(), &version).await.unwrap();
                let mut stream = std::pin::pin!(stream);
                while let Some(event) = stream.next().await {
                    let now = clock::unix_micros();
                    let object = match event.unwrap() {
                        WatchEvent::Added(object) | WatchEvent::Modified(object) => object,
                        WatchEvent::Bookmark(_) | WatchEvent::Deleted(_) => continue,
                        WatchEvent::Error(status) => panic!("{status:?}"),
                    };
                    version = object.resource_version().unwrap();
                    if ended(&object) {
                        kept.at.lock().entry(object.name_any()).or_insert(now);
                        kept.changed.notify_one();
                    }
                }
            }
        });
        Self { ends, listener }
    }

    /// Waits until all of these have finished. Returns the time of each.
    pub(crate) async fn until(&self, names: &[String]) -> Vec<i64> {
        let all = async {
            loop {
                let found = {
                    let at = self.ends.at.lock();
                    names.iter().map(|name| at.get(name).copied()).collect::<Option<Vec<_>>>()
                };
                match found {
                    Some(found) => return found,
                    None => self.ends.changed.notified().await,
                }
            }
        };
        timeout(TEST_TIMEOUT, all).await.expect("all end")
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
