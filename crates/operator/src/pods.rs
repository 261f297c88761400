//! Watch of worker pods: keeps the pods of each scope, by agent, and triggers the agents that they belong to.

mod awaited;

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

use self::awaited::Awaited;
use crate::cluster::{AGENT, ROLE};
use crate::context::Context;
use crate::controller::WATCH_TIMEOUT_SECONDS;
use crate::kind::Guarded;
use crate::terminating;

/// Worker pods of one scope. The pods of an agent are found without a look at the others.
#[derive(Clone)]
pub(crate) struct WorkerPods {
    /// Watched namespace; `None` is the whole cluster.
    scope: Option<String>,
    store: Store<Pod>,
    by_agent: Arc<Mutex<ByAgent>>,
    awaited: Arc<Mutex<Awaited>>,
    /// Number of pods that were looked up.
    #[cfg(test)]
    lookups: Arc<std::sync::atomic::AtomicUsize>,
    /// Cancelled once the first list has arrived.
    pub synced: CancellationToken,
}

type ByAgent = HashMap<ObjectRef<Guarded<Agent>>, HashSet<ObjectRef<Pod>>>;

impl WorkerPods {
    /// Returns the pods of a namespace, or of the whole cluster, and what the watch writes them with.
    pub(crate) fn new(scope: Option<String>) -> (Self, Writer<Pod>) {
        let (store, writer) = reflector::store();
        let pods = Self {
            scope,
            store,
            by_agent: Arc::default(),
            awaited: Arc::default(),
            #[cfg(test)]
            lookups: Arc::default(),
            synced: CancellationToken::new(),
        };
        (pods, writer)
    }

    /// Awaits a pod that was created, if it is of this scope.
    pub(crate) fn created(&self, pod: &Arc<Pod>) {
        let namespace = pod.metadata.namespace.as_deref();
        if self.scope.as_deref().is_none_or(|scope| namespace == Some(scope)) {
            self.awaited.lock().add(pod);
        }
    }

    /// Returns whether a created pod is not delivered yet.
    pub(crate) fn awaits(&self, uid: &str) -> bool {
        self.awaited.lock().contains(uid)
    }

    /// Awaits a pod no longer.
    pub(crate) fn forget(&self, uid: &str) {
        self.awaited.lock().remove(uid);
    }

    /// Awaits no pod of an agent any longer.
    pub(crate) fn forget_of(&self, namespace: &str, agent: &str) {
        self.awaited.lock().remove_of(namespace, agent);
    }

    /// Returns the pods of an agent, also those that are not delivered yet. They are there: ignoring one would create it twice, and end its
    /// session.
    pub(crate) fn of(&self, namespace: &str, agent: &str) -> Vec<Arc<Pod>> {
        // First: one that is delivered meanwhile is in the store.
        let mut awaited = self.awaited.lock().of(namespace, agent);
        let by_agent = self.by_agent.lock();
        let known = by_agent.get(&ObjectRef::new(agent).within(namespace));
        let pods = known.into_iter().flatten().filter_map(|pod| self.look_up(pod));
        // The label may have changed.
        let mut pods: Vec<_> = pods.filter(|pod| is_of(pod, namespace, agent)).collect();
        let delivered: HashSet<_> = pods.iter().map(|pod| &pod.metadata.uid).collect();
        awaited.retain(|pod| !delivered.contains(&pod.metadata.uid));
        pods.append(&mut awaited);
        pods
    }

    fn look_up(&self, pod: &ObjectRef<Pod>) -> Option<Arc<Pod>> {
        #[cfg(test)]
        self.lookups.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.store.get(pod)
    }

    /// Takes a pod as the watch delivers it.
    #[cfg(test)]
    pub(crate) fn apply(&self, writer: &mut Writer<Pod>, pod: Pod) {
        self.follow(writer, &Event::Apply(pod));
    }

    /// Takes a change as the watch delivers it.
    #[cfg(test)]
    pub(crate) fn follow(&self, writer: &mut Writer<Pod>, change: &Event<Pod>) {
        writer.apply_watcher_event(change);
        self.observe(change);
    }

    /// Follows a change that the store has. Returns the agents whose pods may have changed.
    fn observe(&self, change: &Event<Pod>) -> HashSet<ObjectRef<Guarded<Agent>>> {
        let agents = self.observe_agents(change);
        // Last, so that a pod which is not awaited any more is in the store.
        self.awaited.lock().observe(change);
        if matches!(change, Event::InitDone) {
            self.synced.cancel();
        }
        agents
    }

    fn observe_agents(&self, change: &Event<Pod>) -> HashSet<ObjectRef<Guarded<Agent>>> {
        match change {
            Event::Apply(pod) => {
                let agent = agent_of(pod);
                if let Some(agent) = agent.clone() {
                    self.by_agent.lock().entry(agent).or_default().insert(ObjectRef::from_obj(pod));
                }
                agent.into_iter().collect()
            }
            Event::Delete(pod) => {
                let agent = agent_of(pod);
                let mut by_agent = self.by_agent.lock();
                if let Some(agent) = &agent
                    && let Some(pods) = by_agent.get_mut(agent)
                {
                    pods.remove(&ObjectRef::from_obj(pod));
                    if pods.is_empty() {
                        by_agent.remove(agent);
                    }
                }
                agent.into_iter().collect()
            }
            // A list after a lost watch does not name what was deleted meanwhile.
            Event::InitDone => {
                let mut new = ByAgent::new();
                for pod in self.store.state() {
                    if let Some(agent) = agent_of(&pod) {
                        new.entry(agent).or_default().insert(ObjectRef::from_obj(pod.as_ref()));
                    }
                }
                let mut agents: HashSet<_> = new.keys().cloned().collect();
                agents.extend(std::mem::replace(&mut *self.by_agent.lock(), new).into_keys());
                agents
            }
            // The store has them once the list is complete. The controllers wait for the first one, and take no triggers before.
            Event::Init | Event::InitApply(_) => HashSet::new(),
        }
    }
}

/// Returns whether a pod runs a worker of an agent.
fn is_of(pod: &Pod, namespace: &str, agent: &str) -> bool {
    let is_labelled = pod.labels().get(AGENT).is_some_and(|label| label == agent);
    is_labelled && pod.metadata.namespace.as_deref() == Some(namespace)
}

/// Returns the agent whose worker a pod runs.
fn agent_of(pod: &Pod) -> Option<ObjectRef<Guarded<Agent>>> {
    let agent = pod.labels().get(AGENT)?;
    Some(ObjectRef::new(agent).within(&pod.namespace().unwrap_or_default()))
}

/// Watches the worker pods of one scope until `shutdown`, and triggers the agents of that scope.
pub(crate) async fn watch(
    context: Context,
    pods: Api<Pod>,
    (known, writer): (WorkerPods, Writer<Pod>),
    trigger: mpsc::Sender<ObjectRef<Guarded<Agent>>>,
    shutdown: CancellationToken,
) {
    let config = watcher::Config::default()
        .timeout(WATCH_TIMEOUT_SECONDS)
        .labels(&format!("{ROLE}=worker,{}", context.options.class.selector()));
    let changes = watcher(pods, config).default_backoff().modify(|pod| pod.metadata.managed_fields = None);
    let mut changes = Box::pin(changes.reflect(writer).take_until(shutdown.cancelled_owned()));
    while let Some(change) = changes.next().await {
        let change = match change {
            Ok(change) => change,
            Err(error) => {
                context.health.failed("pods", "watch");
                tracing::warn!(%error, kind = "pods", "watch failed, retrying");
                continue;
            }
        };
        let agents = known.observe(&change);
        if let Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) = &change
            && terminating::is_in_grace_period(pod)
            && let Err(error) = terminating::release(&context.kube, pod).await
        {
            context.health.failed("pods", "release");
            tracing::warn!(%error, pod = pod.name_any(), "failed to clean up pod in terminating namespace");
        }
        for agent in agents {
            let _ = trigger.send(agent).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use http::StatusCode;
    use kube::Client;
    use serde_json::{Value, json};

    use super::*;
    use crate::context::tests::{api_server, context};
    use crate::run::TRIGGER_QUEUE_SIZE;

    fn pod(agent: &str, name: &str) -> Pod {
        let metadata = json!({"namespace": "team", "name": name, "labels": {"rota.dev/agent": agent}});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn names(pods: &WorkerPods, agent: &str) -> Vec<String> {
        let mut names: Vec<_> = pods.of("team", agent).iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names
    }

    /// Returns the client of an API server that lists these pods once, and whose watch is silent.
    fn lists_once(pods: &[Pod]) -> Client {
        let list = json!({
            "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": pods,
        });
        let list = Mutex::new(Some(list));
        api_server(move |_, _, _| {
            let list: Option<Value> = list.lock().take();
            async move {
                match list {
                    Some(list) => (StatusCode::OK, list),
                    None => pending().await,
                }
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn first_list_waits_for_no_controller() {
        let all: Vec<_> = (0..1100).map(|number| pod("one", &format!("pod-{number}"))).collect();
        let client = lists_once(&all);
        let ((pods, writer), stop) = (WorkerPods::new(None), CancellationToken::new());
        // Nothing takes a trigger before the list is complete.
        let (trigger, mut triggers) = mpsc::channel(TRIGGER_QUEUE_SIZE);
        let watch =
            Box::pin(watch(context(client.clone()), Api::all(client), (pods.clone(), writer), trigger, stop));
        let observed = async {
            let synced = tokio::time::timeout(Duration::from_secs(60), pods.synced.cancelled());
            synced.await.expect("the first list is not complete");
            triggers.recv().await
        };
        let first = tokio::select! {
            () = watch => panic!("the watch has ended"),
            first = observed => first,
        };
        assert_eq!(first, Some(ObjectRef::new("one").within("team")));
        assert_eq!(pods.of("team", "one").len(), 1100);
        assert!(triggers.try_recv().is_err(), "one for each agent");
    }

    #[test]
    fn complete_list_triggers_agents_that_lost_pods() {
        let (pods, mut writer) = WorkerPods::new(None);
        let mut change = |change: Event<Pod>| {
            writer.apply_watcher_event(&change);
            let mut agents: Vec<_> = pods.observe(&change).into_iter().map(|agent| agent.name).collect();
            agents.sort();
            agents
        };
        assert_eq!(change(Event::Apply(pod("one", "a"))), ["one"]);
        assert_eq!(change(Event::Apply(pod("two", "b"))), ["two"]);
        // The watch was lost, and pod `a` was deleted meanwhile.
        assert_eq!(change(Event::Init), [""; 0]);
        assert_eq!(change(Event::InitApply(pod("two", "b"))), [""; 0]);
        assert_eq!(change(Event::InitDone), ["one", "two"]);
        assert_eq!(change(Event::Delete(pod("two", "b"))), ["two"]);
    }

    #[test]
    fn pods_are_found_by_their_agent() {
        let (pods, mut writer) = WorkerPods::new(None);
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

    #[test]
    fn awaited_pods_are_found_by_their_agent() {
        let (pods, mut writer) = WorkerPods::new(Some("team".to_owned()));
        let created = |namespace: &str, agent: &str, name: &str| {
            let mut pod = pod(agent, name);
            (pod.metadata.namespace, pod.metadata.uid) = (Some(namespace.to_owned()), Some(name.to_owned()));
            pods.created(&Arc::new(pod.clone()));
            pod
        };
        let first = created("team", "one", "a");
        for (namespace, agent, name) in [("team", "one", "b"), ("team", "two", "c"), ("other", "one", "d")] {
            created(namespace, agent, name);
        }
        assert_eq!(
            (names(&pods, "one"), names(&pods, "none")),
            (vec!["a".to_owned(), "b".to_owned()], vec![])
        );
        assert!(pods.of("other", "one").is_empty(), "it is of another scope");
        // It is delivered, and about to be awaited no longer.
        let change = Event::Apply(first);
        writer.apply_watcher_event(&change);
        pods.observe_agents(&change);
        assert_eq!(names(&pods, "one"), ["a", "b"]);
        pods.observe(&change);
        assert_eq!(names(&pods, "one"), ["a", "b"]);
        pods.forget_of("team", "one");
        assert_eq!(names(&pods, "one"), ["a"]);
        assert_eq!(names(&pods, "two"), ["c"]);
    }

    /// What is looked at for an agent is its own, however many pods there are.
    #[test]
    fn pods_of_other_agents_cost_nothing() {
        for total in [100, 10_000] {
            let (pods, mut writer) = WorkerPods::new(None);
            for number in 0..total {
                let agent = format!("agent-{}", number / 10);
                pods.apply(&mut writer, pod(&agent, &format!("pod-{number}")));
            }
            assert_eq!(names(&pods, "agent-7").len(), 10);
            assert_eq!(pods.lookups.load(Ordering::Relaxed), 10, "of {total} pods");
        }
    }
}
