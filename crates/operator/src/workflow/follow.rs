//! Streams of the records of workflows that have not ended: one for each, which triggers its resource at every change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use rota_crds::resource::Workflow;
use rota_proto::v1;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;
use crate::kind::Guarded;

/// Delay after the end of a stream after which another one may start.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Streams at a time. They share a connection with all other calls of the operator, which allows about a thousand.
const MAX_STREAMS: usize = 256;

/// Streams by the UID of the resource.
#[derive(Default)]
pub(super) struct Followers(Arc<Mutex<HashMap<String, Follower>>>);

struct Follower {
    newest: Option<Arc<v1::Workflow>>,
    has_ended: Arc<AtomicBool>,
    _stream: AbortOnDropHandle<()>,
}

impl Followers {
    /// Returns the record as last received, without its specification.
    pub(super) fn newest(&self, uid: &str) -> Option<Arc<v1::Workflow>> {
        let followers = self.0.lock();
        let follower = followers.get(uid)?;
        if follower.has_ended.load(Ordering::Acquire) { None } else { follower.newest.clone() }
    }

    /// Ends the stream of a workflow.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Ends the streams of all workflows but these.
    pub(super) fn retain(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Starts a stream unless there is one. When it ends, it triggers the resource once more, whose reconciliation reads the record
    /// and starts another stream if need be. Returns whether there is a stream: beyond a number of them, there is none.
    pub(super) fn follow(
        &self,
        context: &Context,
        uid: String,
        record: String,
        resource: ObjectRef<Guarded<Workflow>>,
        trigger: mpsc::Sender<ObjectRef<Guarded<Workflow>>>,
    ) -> bool {
        let mut followers = self.0.lock();
        if followers.get(&uid).is_some_and(|follower| !follower.has_ended.load(Ordering::Acquire)) {
            return true;
        }
        if followers.len() >= MAX_STREAMS && !followers.contains_key(&uid) {
            return false;
        }
        let (all, control) = (Arc::clone(&self.0), context.control.clone());
        let has_ended = Arc::new(AtomicBool::new(false));
        let (key, ended) = (uid.clone(), Arc::clone(&has_ended));
        let stream = async move {
            let request = v1::WatchWorkflowRequest { name: record, without_steps: true };
            if let Ok(mut stream) = control.watch_workflow(request).await {
                while let Ok(Some(message)) = stream.message().await {
                    let Some(workflow) = message.workflow else { continue };
                    if let Some(follower) = all.lock().get_mut(&key) {
                        follower.newest = Some(Arc::new(workflow));
                    }
                    if trigger.send(resource.clone()).await.is_err() {
                        return;
                    }
                }
            }
            ended.store(true, Ordering::Release);
            tokio::time::sleep(RESTART_DELAY).await;
            let _ = trigger.send(resource).await;
        };
        let stream = AbortOnDropHandle::new(spawn("workflow stream", OnExit::Done, stream));
        followers.insert(uid, Follower { newest: None, has_ended, _stream: stream });
        true
    }
}
