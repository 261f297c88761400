//! Demand of each agent as last received from the control plane, and the triggers that its changes cause.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use rota_core::scaling;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::context::Context;
use crate::control_store::StoreChange;
use crate::kind::Guarded;

/// Demand by the agent's full name. Empty until the first response was received as a whole.
#[derive(Debug, Default)]
pub(crate) struct DemandCache(Mutex<Received>);

#[derive(Debug, Default)]
struct Received {
    agents: Option<HashMap<String, DemandSnapshot>>,
    /// Parts of a complete response, until its last.
    replacement: Option<HashMap<String, DemandSnapshot>>,
}

/// Demand of one agent at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DemandSnapshot {
    pub demand: v1::Demand,
    /// Tasks that need, or run on, a worker of their own.
    pub isolated: Vec<v1::IsolatedDemand>,
    /// See [`rota_core::scaling::Pool::last_try`]. The operator adds it.
    pub last_try: Option<Duration>,
}

/// Returns whether a worker has stated that it does not isolate its attempts.
pub(super) fn is_not_isolated(worker: &v1::WorkerDemand) -> bool {
    scaling::is_not_isolated(worker.isolated, worker.connected, &worker.not_isolated_reason)
}

/// Returns whether a worker isolates its attempts, if it has shown that.
pub(super) fn isolates(worker: &v1::WorkerDemand) -> Option<bool> {
    let takes_tasks = scaling::takes_tasks(worker.connected, worker.draining, worker.unavailable);
    scaling::isolates(is_not_isolated(worker), takes_tasks)
}

impl DemandCache {
    /// Returns the demand of an agent. `None` means that none was received yet, as opposed to no demand.
    pub(crate) fn get(&self, agent: &str) -> Option<DemandSnapshot> {
        let received = self.0.lock();
        Some(received.agents.as_ref()?.get(agent).cloned().unwrap_or_default())
    }

    /// Applies a response. Returns the agents whose demand changed.
    fn apply(&self, response: v1::WatchDemandResponse) -> HashSet<String> {
        let mut received = self.0.lock();
        let more = response.more;
        if !response.difference {
            received.replacement = Some(HashMap::new());
        }
        let Some(mut replacement) = received.replacement.take() else {
            return apply_to(received.agents.get_or_insert_default(), response);
        };
        apply_to(&mut replacement, response);
        if more {
            received.replacement = Some(replacement);
            return HashSet::new();
        }
        let old = received.agents.take().unwrap_or_default();
        let changed = replacement.iter().filter(|(name, demand)| old.get(*name) != Some(*demand));
        let removed = old.keys().filter(|name| !replacement.contains_key(*name));
        let changed = changed.map(|(name, _)| name).chain(removed).cloned().collect();
        received.agents = Some(replacement);
        changed
    }
}

/// Applies the entries of a response. Returns the agents that they belong to.
fn apply_to(
    agents: &mut HashMap<String, DemandSnapshot>,
    response: v1::WatchDemandResponse,
) -> HashSet<String> {
    let mut touched = HashSet::new();
    for demand in response.demands {
        touched.insert(demand.agent.clone());
        agents.entry(demand.agent.clone()).or_default().apply(demand);
    }
    for task in response.isolated {
        let Some((namespace, _)) = names::parse(&task.task, "tasks") else { continue };
        let agent = names::agent(namespace, &task.agent);
        let isolated = &mut agents.entry(agent.clone()).or_default().isolated;
        let removed = task.removed;
        put(isolated, task, removed, |task| &task.task);
        touched.insert(agent);
    }
    for name in &touched {
        if agents.get(name).is_some_and(|agent| *agent == DemandSnapshot::default()) {
            agents.remove(name);
        }
    }
    touched
}

impl DemandSnapshot {
    fn apply(&mut self, demand: v1::Demand) {
        if demand.removed {
            self.demand = v1::Demand::default();
            return;
        }
        let mut workers = std::mem::take(&mut self.demand.workers);
        for worker in demand.workers {
            let removed = worker.removed;
            put(&mut workers, worker, removed, |worker| &worker.worker);
        }
        self.demand = v1::Demand { workers, ..demand };
    }
}

/// Puts an entry into a list that is sorted by its key, or removes it.
fn put<T>(list: &mut Vec<T>, entry: T, removed: bool, key: fn(&T) -> &String) {
    match (list.binary_search_by(|known| key(known).cmp(key(&entry))), removed) {
        (Ok(index), true) => drop(list.remove(index)),
        (Ok(index), false) => list[index] = entry,
        (Err(_), true) => {}
        (Err(index), false) => list.insert(index, entry),
    }
}

/// Watches the demand of all agents until `shutdown`. Triggers all agents when the control plane was started again, or has
/// another store.
pub(crate) async fn watch(
    context: Context,
    cache: Arc<DemandCache>,
    stores: Vec<Store<Guarded<Agent>>>,
    triggers: Vec<mpsc::Sender<ObjectRef<Guarded<Agent>>>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut responses = context.control.watch_demand_differences("namespaces/-");
    loop {
        let response = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            response = responses.next() => response,
        };
        let mut response = match response {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Error::Ended("demand stream")),
        };
        let store =
            response.store.clone().map_or(StoreChange::None, |version| context.store.observe(version));
        context.waits.apply(response.difference, std::mem::take(&mut response.waits));
        let changed = cache.apply(response);
        if store != StoreChange::None {
            if let StoreChange::Lost(loss) = store {
                tracing::warn!(
                    cause = loss.describe(),
                    "control plane lost records, registering all agents again"
                );
            }
            for (store, trigger) in stores.iter().zip(&triggers) {
                for agent in store.state() {
                    let _ = trigger.send(ObjectRef::from_obj(agent.as_ref())).await;
                }
            }
        }
        trigger_changed(changed, &stores, &triggers).await;
    }
}

/// Triggers the agents that have a resource. Those without one were created through the API, or have a resource that is not known
/// yet: its first reconciliation finds what the cache has. So nothing waits for controllers that do not run yet.
async fn trigger_changed(
    agents: HashSet<String>,
    stores: &[Store<Guarded<Agent>>],
    triggers: &[mpsc::Sender<ObjectRef<Guarded<Agent>>>],
) {
    for name in agents {
        let Some((namespace, agent)) = names::parse(&name, "agents") else { continue };
        let agent = ObjectRef::new(agent).within(namespace);
        let scope = stores.iter().zip(triggers).find(|(store, _)| store.get(&agent).is_some());
        if let Some((_, trigger)) = scope {
            let _ = trigger.send(agent).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    const AGENT: &str = "namespaces/a/agents/x";

    fn response(demands: Vec<v1::Demand>) -> v1::WatchDemandResponse {
        v1::WatchDemandResponse { demands, ..Default::default() }
    }

    fn queued(queued: i64) -> v1::Demand {
        v1::Demand { agent: AGENT.into(), queued, ..Default::default() }
    }

    fn worker(name: &str, running: i32) -> v1::WorkerDemand {
        v1::WorkerDemand { worker: name.into(), running, ..Default::default() }
    }

    #[test]
    fn only_changed_agents_are_triggered() {
        let cache = DemandCache::default();
        assert_eq!(cache.get(AGENT), None);
        assert_eq!(cache.apply(response(vec![queued(1)])).len(), 1);
        assert_eq!(cache.apply(response(vec![queued(1)])).len(), 0);
        assert_eq!(cache.apply(response(vec![queued(2)])).len(), 1);
        assert_eq!(cache.get(AGENT).unwrap().demand.queued, 2);
        assert_eq!(cache.apply(response(vec![])).len(), 1, "its demand ended");
        assert_eq!(cache.get(AGENT), Some(DemandSnapshot::default()));
    }

    #[test]
    fn differences_change_what_they_name() {
        let cache = DemandCache::default();
        let workers = vec![worker("a", 0), worker("b", 0)];
        cache.apply(response(vec![v1::Demand { workers, ..queued(3) }]));
        let workers =
            vec![worker("b", 1), v1::WorkerDemand { removed: true, ..worker("a", 0) }, worker("c", 0)];
        let difference = |demand| v1::WatchDemandResponse { difference: true, ..response(vec![demand]) };
        cache.apply(difference(v1::Demand { workers, ..queued(2) }));
        let demand = cache.get(AGENT).unwrap().demand;
        assert_eq!((demand.queued, demand.workers), (2, vec![worker("b", 1), worker("c", 0)]));
        cache.apply(difference(v1::Demand { removed: true, ..queued(0) }));
        assert_eq!(cache.get(AGENT), Some(DemandSnapshot::default()));
    }

    #[test]
    fn isolated_tasks_come_and_leave() {
        let cache = DemandCache::default();
        let task = |removed| v1::WatchDemandResponse {
            isolated: vec![v1::IsolatedDemand {
                task: "namespaces/a/tasks/1".into(),
                agent: "x".into(),
                removed,
                ..Default::default()
            }],
            difference: removed,
            ..Default::default()
        };
        cache.apply(task(false));
        assert_eq!(cache.get(AGENT).unwrap().isolated.len(), 1);
        assert!(cache.apply(task(true)).contains(AGENT));
        assert_eq!(cache.get(AGENT), Some(DemandSnapshot::default()));
    }

    #[test]
    fn agents_without_a_resource_are_not_triggered() {
        let (first, _): (Store<Guarded<Agent>>, _) = reflector::store();
        let (second, mut writer): (Store<Guarded<Agent>>, _) = reflector::store();
        let ((one, mut triggers), (two, mut others)) = (mpsc::channel(1), mpsc::channel(1));
        let (stores, senders) = ([first, second], [one, two]);
        let changed = || HashSet::from([AGENT.to_owned(), "namespaces/b/agents/y".to_owned()]);
        // Before the controllers run, no store has a resource, and nothing takes a trigger.
        for _ in 0..3 {
            trigger_changed(changed(), &stores, &senders).now_or_never().expect("waits for a controller");
        }
        let agent = json!({
            "apiVersion": "rota.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "x", "namespace": "a"},
            "spec": {"runtime": {"scripted": {}}},
        });
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(agent).unwrap()));
        trigger_changed(changed(), &stores, &senders).now_or_never().expect("waits for a controller");
        assert_eq!(others.try_recv().ok(), Some(ObjectRef::new("x").within("a")));
        assert!(others.try_recv().is_err() && triggers.try_recv().is_err());
    }

    #[test]
    fn nothing_is_known_before_the_last_part() {
        let cache = DemandCache::default();
        assert_eq!(cache.apply(v1::WatchDemandResponse { more: true, ..response(vec![queued(1)]) }).len(), 0);
        assert_eq!(cache.get("namespaces/a/agents/y"), None, "it may be in the next part");
        let last = v1::Demand { agent: "namespaces/a/agents/y".into(), ..queued(2) };
        let changed = cache.apply(v1::WatchDemandResponse { difference: true, ..response(vec![last]) });
        assert_eq!(changed.len(), 2);
        assert_eq!(cache.get(AGENT).unwrap().demand.queued, 1);
    }
}
