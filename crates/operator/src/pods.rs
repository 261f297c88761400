//! Watch of worker pods: keeps the pods of each scope, by agent, and triggers the agents that they belong to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use rota_crds::resource::Agent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cluster::{AGENT, ROLE};
use crate::context::Context;
use crate::kind::Guarded;
use crate::terminating;

/// Worker pods of one scope. The pods of an agent are found without a look at the others.
#[derive(Clone)]
pub(crate) struct WorkerPods {
    store: Store<Pod>,
    by_agent: Arc<Mutex<ByAgent>>,
    /// Cancelled once the first list has arrived.
    pub synced: CancellationToken,
}

type ByAgent = HashMap<ObjectRef<Guarded<Agent>>, HashSet<ObjectRef<Pod>>>;

impl WorkerPods {
    /// Returns the pods, and what the watch writes them with.
    pub(crate) fn new() -> (Self, Writer<Pod>) {
        let (store, writer) = reflector::store();
        (Self { store, by_agent: Arc::default(), synced: CancellationToken::new() }, writer)
    }

    /// Returns the pods of an agent.
    pub(crate) fn of(&self, namespace: &str, agent: &str) -> Vec<Arc<Pod>> {
        let by_agent = self.by_agent.lock();
        let known = by_agent.get(&ObjectRef::new(agent).within(namespace));
        let pods = known.into_iter().flatten().filter_map(|pod| self.store.get(pod));
        // The label may have changed.
        pods.filter(|pod| pod.labels().get(AGENT).is_some_and(|label| label == agent)).collect()
    }

    /// Takes a pod as the watch delivers it.
    #[cfg(test)]
    pub(crate) fn apply(&self, writer: &mut Writer<Pod>, pod: Pod) {
        let change = Event::Apply(pod);
        writer.apply_watcher_event(&change);
        self.observe(&change);
    }

    /// Follows a change that the store has.
    fn observe(&self, change: &Event<Pod>) {
        match change {
            Event::Apply(pod) => {
                if let Some(agent) = agent_of(pod) {
                    self.by_agent.lock().entry(agent).or_default().insert(ObjectRef::from_obj(pod));
                }
            }
            Event::Delete(pod) => {
                let Some(agent) = agent_of(pod) else { return };
                let mut by_agent = self.by_agent.lock();
                if let Some(pods) = by_agent.get_mut(&agent) {
                    pods.remove(&ObjectRef::from_obj(pod));
                    if pods.is_empty() {
                        by_agent.remove(&agent);
                    }
                }
            }
            // A list after a lost watch does not name what was deleted meanwhile.
            Event::InitDone => {
                let mut new = ByAgent::new();
                for pod in self.store.state() {
                    if let Some(agent) = agent_of(&pod) {
                        new.entry(agent).or_default().insert(ObjectRef::from_obj(pod.as_ref()));
                    }
                }
                *self.by_agent.lock() = new;
                self.synced.cancel();
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

/// Returns the agent whose worker a pod runs.
fn agent_of(pod: &Pod) -> Option<ObjectRef<Guarded<Agent>>> {
    let agent = pod.labels().get(AGENT)?;
    Some(ObjectRef::new(agent).within(&pod.namespace().unwrap_or_default()))
}

/// Watches the worker pods of one scope until `shutdown`.
pub(crate) async fn watch(
    context: Context,
    pods: Api<Pod>,
    (known, writer): (WorkerPods, Writer<Pod>),
    triggers: Vec<mpsc::Sender<ObjectRef<Guarded<Agent>>>>,
    shutdown: CancellationToken,
) {
    let config =
        watcher::Config::default().labels(&format!("{ROLE}=worker,{}", context.options.class.selector()));
    let changes = watcher(pods, config).default_backoff().modify(|pod| pod.metadata.managed_fields = None);
    let mut changes = Box::pin(changes.reflect(writer).take_until(shutdown.cancelled_owned()));
    while let Some(change) = changes.next().await {
        if let Ok(change) = &change {
            known.observe(change);
        }
        let pod = match change {
            Ok(Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) => pod,
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                context.health.failed("pods", "watch");
                tracing::warn!(%error, kind = "pods", "watch failed, retrying");
                continue;
            }
        };
        if terminating::is_in_grace_period(&pod)
            && let Err(error) = terminating::release(&context.kube, &pod).await
        {
            context.health.failed("pods", "release");
            tracing::warn!(%error, pod = pod.name_any(), "failed to clean up pod in terminating namespace");
        }
        let Some(agent) = agent_of(&pod) else { continue };
        for trigger in &triggers {
            let _ = trigger.send(agent.clone()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(agent: &str, name: &str) -> Pod {
        let metadata = json!({"namespace": "team", "name": name, "labels": {"rota.dev/agent": agent}});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn names(pods: &WorkerPods, agent: &str) -> Vec<String> {
        let mut names: Vec<_> = pods.of("team", agent).iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names
    }

    #[test]
    fn pods_are_found_by_their_agent() {
        let (pods, mut writer) = WorkerPods::new();
        let mut change = |change: Event<Pod>| {
            writer.apply_watcher_event(&change);
            pods.observe(&change);
        };
        for pod in [pod("one", "a"), pod("one", "b"), pod("two", "c")] {
            change(Event::Apply(pod));
        }
        assert_eq!(names(&pods, "one"), ["a", "b"]);
        assert_eq!(names(&pods, "none"), [""; 0]);
        change(Event::Delete(pod("one", "a")));
        assert_eq!(names(&pods, "one"), ["b"]);
        // The watch was lost, and the list that follows has one of them, for another agent, and a new one.
        change(Event::Init);
        change(Event::InitApply(pod("two", "b")));
        change(Event::InitApply(pod("three", "d")));
        assert_eq!(names(&pods, "three"), [""; 0], "not complete yet");
        change(Event::InitDone);
        assert_eq!(names(&pods, "one"), [""; 0]);
        assert_eq!(
            (names(&pods, "two"), names(&pods, "three")),
            (vec!["b".to_owned()], vec!["d".to_owned()])
        );
        assert_eq!(pods.by_agent.lock().len(), 2, "agents without pods are forgotten");
    }

    /// What is looked at for an agent is its own, however many pods there are.
    #[test]
    fn pods_of_other_agents_cost_nothing() {
        for total in [100, 10_000] {
            let (pods, mut writer) = WorkerPods::new();
            for number in 0..total {
                let agent = format!("agent-{}", number / 10);
                pods.apply(&mut writer, pod(&agent, &format!("pod-{number}")));
            }
            let key = ObjectRef::new("agent-7").within("team");
            let looked_at = pods.by_agent.lock().get(&key).map(HashSet::len);
            assert_eq!((looked_at, names(&pods, "agent-7").len()), (Some(10), 10), "of {total} pods");
        }
    }
}
