//! Pods that a create call has returned and their watch has not delivered yet. Counts no time: a watch may be cut off silently for
//! minutes, while its pods run. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::is_of;

/// Created pods by UID, each with the number of lists that had begun when it was there.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    pods: HashMap<String, (Arc<Pod>, u64)>,
    lists_begun: u64,
}

impl Awaited {
    pub(super) fn add(&mut self, pod: &Arc<Pod>) {
        self.pods.insert(pod.uid().unwrap_or_default(), (Arc::clone(pod), self.lists_begun));
    }

    /// Returns the pods of an agent.
    pub(super) fn of(&self, namespace: &str, agent: &str) -> Vec<Arc<Pod>> {
        let pods = self.pods.values().map(|(pod, _)| pod);
        pods.filter(|pod| is_of(pod, namespace, agent)).cloned().collect()
    }

    pub(super) fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    pub(super) fn remove_of(&mut self, namespace: &str, agent: &str) {
        self.pods.retain(|_, (pod, _)| !is_of(pod, namespace, agent));
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Follows a change that the store has.
    pub(super) fn observe(&mut self, change: &Event<Pod>) {
        match change {
            Event::Apply(pod) | Event::Delete(pod) => {
                self.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
            Event::Init => self.lists_begun += 1,
            // A list that began later and lacks the pod shows that it was deleted. One that had begun before may lack it: if it was deleted
            // before that list was read, only an attempt to delete it shows so.
            Event::InitDone => self.pods.retain(|_, (_, lists_begun)| *lists_begun == self.lists_begun),
            // The store has it once the list is complete.
            Event::InitApply(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": uid}})).unwrap()
    }

    #[test]
    fn created_pod_is_awaited_until_delivered() {
        let mut awaited = Awaited::default();
        for change in [Event::Apply as fn(Pod) -> Event<Pod>, Event::Delete] {
            awaited.add(&Arc::new(pod("a")));
            awaited.observe(&change(pod("b")));
            assert!(awaited.contains("a"));
            awaited.observe(&change(pod("a")));
            assert!(!awaited.contains("a"));
        }
    }

    #[test]
    fn only_later_lists_end_the_wait() {
        let mut awaited = Awaited::default();
        awaited.observe(&Event::Init);
        awaited.add(&Arc::new(pod("a")));
        awaited.observe(&Event::InitApply(pod("b")));
        awaited.observe(&Event::InitDone);
        assert!(awaited.contains("a"), "it was created while the list was read");
        // The next list fails, and is begun again.
        awaited.observe(&Event::Init);
        awaited.observe(&Event::Init);
        awaited.observe(&Event::InitApply(pod("a")));
        assert!(awaited.contains("a"), "the store does not have it yet");
        awaited.observe(&Event::InitDone);
        assert!(!awaited.contains("a"));
    }
}
